from dlassets.engines.base import counting


def test_counts_of_parts_come_as_their_sum_and_the_total():
    reported = []
    advance = counting(lambda *counts: reported.append(counts), 10)
    for rows in (3, 0, 7):
        advance(rows)
    counting(lambda *counts: reported.append(counts))(2)
    counting(None, 10)(2)

    assert reported == [(3, 10), (3, 10), (10, 10), (2, None)]
