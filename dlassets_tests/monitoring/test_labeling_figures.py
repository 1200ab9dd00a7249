"""What labelling bought, as figures: each by hand, of a few counts."""

import datetime as dt
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from dlassets.monitoring.labeling_report.figures import (
    BothTested,
    Given,
    Judged,
    Trained,
    accuracy,
    answers,
    audit_answered,
    costs,
    flows,
    label_efficiency,
    paired_interval,
    queue,
    time_to_answer,
    work,
)
from dlassets.monitoring.labeling_report.measures import Measure, Period, measure_of
from dlassets.registry.models import ModelVersion

if TYPE_CHECKING:
    import pyarrow as pa

ONE, TWO, THREE = (ModelVersion("m", number, f"package {number}") for number in (1, 2, 3))
# A Saturday: its week began on the 26th.
NOON = dt.datetime(2026, 1, 31, 12, tzinfo=dt.UTC)
DAY, WEEK = NOON.date(), Period(dt.date(2026, 1, 26), dt.date(2026, 2, 2))
MONDAY = dt.date(2026, 2, 2)
NEXT_WEEK = Period(MONDAY, dt.date(2026, 2, 9))


def by_name(found: list[Measure]) -> dict[tuple[Any, ...], tuple[float | None, int]]:
    """Return value and count by figure, slice, version and first day, as far as there are any."""
    named = {}
    for each in found:
        of = (each.figure, each.slice, each.model and each.model.version, each.period and each.period.start)
        named[tuple(part for part in of if part)] = (each.value, each.count)
    assert len(named) == len(found)
    return named


def requests(*rows: tuple[str | dt.datetime | None, ...]) -> "pa.Table":
    """Return requests of strategy, status, requested_at, answered_at and, where it is said, closed_at."""
    import pyarrow as pa

    time = pa.timestamp("us", tz="UTC")
    columns = {"strategy": pa.string(), "status": pa.string(), "requested_at": time, "answered_at": time}
    columns["closed_at"] = time
    return pa.Table.from_pylist([dict(zip(columns, row, strict=False)) for row in rows], schema=pa.schema(columns))


def later(hours: float) -> dt.datetime:
    return NOON + dt.timedelta(hours=hours)


def test_accuracy_is_of_all_photos_of_those_that_chance_chose_and_of_the_others_in_all_and_by_week() -> None:
    found = accuracy(
        [
            Judged(ONE, DAY, by_chance=True, for_a_reason=False, photos=4, correct=3),
            Judged(ONE, DAY, by_chance=False, for_a_reason=True, photos=6, correct=1),
            Judged(ONE, MONDAY, by_chance=True, for_a_reason=True, photos=2, correct=2),
            Judged(TWO, MONDAY, by_chance=False, for_a_reason=True, photos=5, correct=5),
        ]
    )

    assert by_name(found) == {
        ("accuracy", 1): (0.5, 12),
        ("accuracy", 1, WEEK.start): (0.4, 10),
        ("accuracy", 1, MONDAY): (1.0, 2),
        ("accuracy", "audit", 1): (5 / 6, 6),
        ("accuracy", "audit", 1, WEEK.start): (0.75, 4),
        ("accuracy", "audit", 1, MONDAY): (1.0, 2),
        ("accuracy", "asked", 1): (3 / 8, 8),
        ("accuracy", "asked", 1, WEEK.start): (1 / 6, 6),
        ("accuracy", "asked", 1, MONDAY): (1.0, 2),
        ("accuracy", 2): (1.0, 5),
        ("accuracy", 2, MONDAY): (1.0, 5),
        ("accuracy", "asked", 2): (1.0, 5),
        ("accuracy", "asked", 2, MONDAY): (1.0, 5),
    }
    (half,) = [each for each in found if each.count == 12]
    # Wilson of 6 of 12: 0.5 ± z/(1 + z²/n)·√(1/4n + z²/4n²)
    assert half.interval == pytest.approx((0.2538, 0.7462), abs=1e-4)
    assert next(each.period for each in found if each.period) == WEEK


def test_the_audit_s_estimate_covers_the_truth_where_that_of_the_photos_that_were_asked_about_is_far_below() -> None:
    """Of 2,000 photos 90% are predicted right, the less often the less sure, and the 200 least sure are asked about."""
    covered, chosen, audited = 0, [], []
    seeds = 200
    for seed in range(seeds):
        chance = np.random.default_rng(seed)
        confidence = chance.beta(5, 0.6, size=2000)
        right = chance.random(2000) < confidence
        asked, audit = np.argsort(confidence)[:200], chance.choice(2000, 150, replace=False)
        found = accuracy(
            [
                Judged(ONE, DAY, by_chance=True, for_a_reason=False, photos=150, correct=int(right[audit].sum())),
                Judged(ONE, DAY, by_chance=False, for_a_reason=True, photos=200, correct=int(right[asked].sum())),
            ]
        )
        of = {each.slice: each for each in found if each.period is None}
        low, high = of["audit"].interval or (0, 0)
        covered += low <= right.mean() <= high
        audited.append((of["audit"].value or 0) - right.mean())
        chosen.append((of["asked"].value or 0) - right.mean())

    assert covered >= 0.93 * seeds
    assert abs(np.mean(audited)) < 0.01
    assert np.mean(chosen) < -0.2


def test_how_many_of_the_photos_that_chance_chose_are_answered_is_said() -> None:
    asked = requests(
        ("audit", "answered", NOON, NOON), ("audit", "open", NOON, None), ("margin", "answered", NOON, NOON)
    )

    assert by_name(audit_answered(asked)) == {("audit_answered",): (0.5, 2)}
    assert audit_answered(requests(("margin", "answered", NOON, NOON))) == []


def test_labels_are_worth_what_a_version_gained_on_the_test_photos_of_both() -> None:
    trained = [Trained(ONE, "r1", 100, 0), Trained(TWO, "r2", 140, 50), Trained(THREE, "r3", 140, None)]
    tested = [
        BothTested("r1", "r1", 15, 0, 0, 5),
        BothTested("r2", "r2", 18, 0, 0, 4),
        BothTested("r2", "r1", both=14, only_later=4, only_earlier=1, neither=1),
        BothTested("r3", "r2", both=18, only_later=0, only_earlier=0, neither=4),
    ]

    found = label_efficiency(trained, tested)

    assert by_name(found) == {
        ("human_labels", 1): (0, 100),
        ("human_labels", 2): (50, 140),
        ("test_accuracy", 1): (0.75, 20),
        ("test_accuracy", 2): (18 / 22, 22),
        ("accuracy_gain", "since_previous", 2): (0.15, 20),
        ("accuracy_gain", "since_first", 2): (0.15, 20),
        ("gain_per_100_labels", "since_previous", 2): (0.3, 50),
        ("gain_per_100_labels", "since_first", 2): (0.3, 50),
        ("accuracy_gain", "since_previous", 3): (0.0, 22),
    }
    gain, per_100 = (
        next(each for each in found if each.figure == figure) for figure in ("accuracy_gain", "gain_per_100_labels")
    )
    # 4.5 and 1.5 of 22: 0.13636 ± 1.96·√((6/22 - 0.13636²)/22)
    half = 1.959964 * math.sqrt((6 / 22 - (3 / 22) ** 2) / 22)
    assert gain.interval == pytest.approx((3 / 22 - half, 3 / 22 + half), abs=1e-6)
    assert per_100.interval == pytest.approx((2 * (3 / 22 - half), 2 * (3 / 22 + half)), abs=1e-6)


def test_the_interval_of_a_difference_covers_it_about_as_often_as_it_says() -> None:
    chance = np.random.default_rng(7)
    true = (0.72, 0.12, 0.06, 0.10)  # both, one, other, neither
    drawn = chance.multinomial(60, true, size=1000)

    covered = sum(low <= 0.06 <= high for low, high in (paired_interval(int(b), int(c), 60) for _, b, c, _ in drawn))

    assert 930 <= covered <= 975


def test_the_time_to_an_answer_is_its_half_and_its_nine_tenths_and_never_below_nothing() -> None:
    asked = requests(
        ("margin", "answered", NOON, later(1)),
        ("margin", "answered", NOON, later(2)),
        ("margin", "answered", NOON, later(-3)),
        ("margin", "answered", NOON, later(48)),
        ("margin", "open", NOON, None),
    )

    assert by_name(time_to_answer(asked)) == {
        ("time_to_answer", "median"): (pytest.approx(1.5 * 3600), 4),
        ("time_to_answer", "p90"): (pytest.approx((2 + 0.7 * 46) * 3600), 4),
        ("time_to_answer", "median", WEEK.start): (3600, 3),
        ("time_to_answer", "p90", WEEK.start): (pytest.approx(1.8 * 3600), 3),
        ("time_to_answer", "median", MONDAY): (48 * 3600, 1),
        ("time_to_answer", "p90", MONDAY): (48 * 3600, 1),
    }
    assert time_to_answer(requests(("margin", "open", NOON, None))) == []


def done(*rows: tuple[dt.datetime, float | None]) -> "pa.Table":
    import pyarrow as pa

    times, seconds = zip(*rows, strict=True)
    return pa.table({"done_at": pa.array(times, pa.timestamp("us", tz="UTC")), "seconds": pa.array(seconds, "double")})


def test_work_is_what_was_measured_and_what_was_not_is_counted_and_not_guessed() -> None:
    found = work(done((NOON, 10.0), (NOON, 30.0), (NOON, None), (later(48), None)), cost_per_hour=36)

    assert by_name(found) == {
        ("answers_unmeasured",): (2, 4),
        ("seconds_of_work",): (40.0, 2),
        ("seconds_per_answer", "median"): (20.0, 2),
        ("cost",): (pytest.approx(0.4), 2),
        ("answers_unmeasured", WEEK.start): (1, 3),
        ("seconds_of_work", WEEK.start): (40.0, 2),
        ("seconds_per_answer", "median", WEEK.start): (20.0, 2),
        ("cost", WEEK.start): (pytest.approx(0.4), 2),
        ("answers_unmeasured", MONDAY): (1, 1),
    }
    assert not [each for each in work(done((NOON, 10.0)), cost_per_hour=None) if each.figure == "cost"]
    assert by_name(work(done((NOON, None)), cost_per_hour=36))[("answers_unmeasured",)] == (1, 1)


def test_a_label_costs_its_measured_work_and_a_point_the_labels_that_it_took() -> None:
    worked = work(done((NOON, 60.0), (NOON, 60.0), (NOON, 60.0), (NOON, None)), cost_per_hour=60)
    given = [Given("page", "Ann", answers=2, photos=2, measured=2), Given("folder", "Bob", 2, photos=1, measured=0)]
    trained = [Trained(ONE, "r1", 100, 0), Trained(TWO, "r2", 140, 50), Trained(THREE, "r3", 190, 100)]
    gained = label_efficiency(trained, [BothTested("r2", "r1", 50, 45, 5, 0), BothTested("r3", "r2", 50, 5, 45, 0)])

    found = costs(worked, given, trained, gained)

    # Three minutes at 60 an hour are 3, by two photos; 50 labels are 75, by 40 points.
    a_point = (pytest.approx(75 / 40), 50)
    assert by_name(found) == {
        ("cost_per_label",): (1.5, 2),
        ("cost_per_point", "since_previous", 2): a_point,
        ("cost_per_point", "since_first", 2): a_point,
    }
    point = next(each for each in found if each.figure == "cost_per_point")
    low, high = paired_interval(45, 5, 100)
    assert point.interval == pytest.approx((75 / (100 * high), 75 / (100 * low)))
    assert costs(work(done((NOON, None)), 60), given, trained, gained) == []


def test_a_gain_that_may_be_none_has_no_most_that_a_point_can_have_cost() -> None:
    worked, given = work(done((NOON, 60.0)), 60), [Given(None, None, 1, 1, 1)]
    trained = [Trained(ONE, "r1", 10, 0), Trained(TWO, "r2", 20, 10)]
    gained = label_efficiency(trained, [BothTested("r2", "r1", 8, 2, 1, 0)])

    point = next(each for each in costs(worked, given, trained, gained) if each.figure == "cost_per_point")

    assert point.value == pytest.approx(10 / (100 / 11))
    assert point.low is not None
    assert point.high is None


def test_answers_are_counted_by_service_and_by_person() -> None:
    given = [Given("page", "Ann", 3, 3, 3), Given("folder", "Ann", 1, 1, 0), Given(None, None, 2, 2, 0)]

    assert by_name(answers(given)) == {
        ("answers_by_service", "page"): (3, 3),
        ("answers_by_service", "folder"): (1, 1),
        ("answers_by_service",): (2, 2),
        ("answers_by_person", "Ann"): (4, 4),
        ("answers_by_person",): (2, 2),
    }


def test_the_queue_is_what_waits_and_since_when() -> None:
    asked = requests(
        ("margin", "open", later(-1), None),
        ("margin", "open", later(-3), None),
        ("margin", "open", later(-10), None),
        ("margin", "planned", later(-90), None),
        ("margin", "answered", later(-99), NOON),
    )

    assert by_name(queue(asked, NOON)) == {
        ("queue", "open"): (3, 3),
        ("queue", "planned"): (1, 1),
        ("queue_age", "median"): (3 * 3600, 3),
        ("queue_age", "oldest"): (10 * 3600, 3),
    }
    assert by_name(queue(requests(("margin", "answered", NOON, NOON)), NOON)) == {
        ("queue", "open"): (0, 0),
        ("queue", "planned"): (0, 0),
    }


def test_requests_are_counted_by_the_day_that_they_were_asked_and_answered_and_withdrawn() -> None:
    asked = requests(
        ("margin", "answered", NOON, later(13), later(13)),
        ("margin", "answered", NOON, later(1), later(13)),
        ("margin", "withdrawn", later(24), None, later(25)),
        ("margin", "withdrawn", NOON, None, later(2)),
        ("margin", "withdrawn", NOON, None),  # before that was written down
        ("margin", "open", later(24), None),
    )

    tomorrow = dt.date(2026, 2, 1)
    assert by_name(flows(asked)) == {
        ("requests", "asked"): (6, 6),
        ("requests", "asked", DAY): (4, 4),
        ("requests", "asked", tomorrow): (2, 2),
        ("requests", "answered"): (2, 2),
        ("requests", "answered", DAY): (1, 1),
        ("requests", "answered", tomorrow): (1, 1),
        ("requests", "withdrawn"): (3, 3),
        ("requests", "withdrawn", DAY): (1, 1),
        ("requests", "withdrawn", tomorrow): (1, 1),
    }


def test_a_measure_is_what_its_row_says_and_each_has_a_name_of_its_own() -> None:
    measures = [
        Measure("accuracy", 0.5, 2, "audit", 0.1, 0.9, ONE, WEEK),
        Measure("accuracy", 0.5, 2, "audit", 0.1, 0.9, ONE, Period.day(WEEK.start)),
        Measure("accuracy", 0.5, 2, "audit", 0.1, 0.9, ONE),
        Measure("accuracy", 0.5, 2, "audit", 0.1, 0.9, ONE._replace(package=None)),
        Measure("accuracy", 0.5, 2, "audit", 0.1, 0.9),
        Measure("accuracy", 0.5, 2),
        Measure("audit", 0.5, 2, "accuracy"),
    ]

    assert [measure_of(each.row(NOON)) for each in measures] == measures
    assert len({each.id for each in measures}) == len(measures)
