"""Times and numbers as people and their spreadsheets write them."""

from datetime import UTC, datetime

import pytest

from dlassets.labeling.formats import seconds_of, time_of


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("2026-01-31T14:05:00Z", (2026, 1, 31, 14, 5)),
        ("2026-01-31 15:05:00+01:00", (2026, 1, 31, 14, 5)),
        ("2026-01-31", (2026, 1, 31)),
        ("31.01.2026 14:05", (2026, 1, 31, 14, 5)),
        ("3.1.2026, 9:05:07", (2026, 1, 3, 9, 5, 7)),
        ("31.01.2026", (2026, 1, 31)),
    ],
)
def test_a_time_is_read_by_one_rule(text: str, time: tuple[int, ...]) -> None:
    assert time_of(text) == datetime(*time, tzinfo=UTC)  # type: ignore[misc,arg-type]


@pytest.mark.parametrize(
    "text", ["01/02/2026 10:00", "31.13.2026", "31.02.2026 10:00", "31.01.26", "1.2", "yesterday", "31.01.2026 25:00"]
)
def test_what_may_be_read_two_ways_is_no_time(text: str) -> None:
    with pytest.raises(ValueError, match="is no time such as 2026-01-31T14:05:00Z"):
        time_of(text)


@pytest.mark.parametrize(("text", "seconds"), [("4.5", 4.5), ("4,5", 4.5), ("0", 0.0), ("1e2", 100.0)])
def test_seconds_have_a_point_or_a_comma(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["nan", "inf", "-1", "1,234.5", "1.234,5", "1,2,3", "quick", ""])
def test_what_is_no_number_of_seconds_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no number from 0 to 2678400"):
        seconds_of(text)
