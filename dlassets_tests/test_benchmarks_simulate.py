import hashlib

import numpy as np
import pytest

from benchmarks import simulate
from benchmarks.simulate import BASELINE, DEFAULT, Plan, Simulation
from dlassets.learning.examples import Examples
from dlassets.settings import Settings

SETTINGS = Settings(split=simulate.SPLIT)


def embedded_photos(classes: int = 8, photos: int = 900, features: int = 12) -> Examples:
    """Generated embeddings: half of the classes are easily told apart, and take most photos; the others are alike."""
    chance = np.random.default_rng(0)
    centers = chance.standard_normal((classes, features)) * 3
    centers[classes // 2 :] = centers[-1] + chance.standard_normal((classes - classes // 2, features)) * 0.5
    shares = np.where(np.arange(classes) < classes // 2, 3, 1)
    labels = chance.choice(classes, photos, p=shares / shares.sum())
    names = [f"class {label}" for label in labels]
    return Examples(
        paths=[f"{place}.jpg" for place in range(photos)],
        image_ids=[hashlib.sha256(str(place).encode()).hexdigest() for place in range(photos)],
        labels=labels.astype(np.int64),
        names=names,
        features=(centers[labels] + chance.standard_normal((photos, features))).astype(np.float32),
    )


@pytest.fixture(scope="module")
def simulation() -> Simulation:
    return simulate.simulate(embedded_photos(), [DEFAULT], 4, Plan(labelled=60, asked=80, rounds=1), SETTINGS)


def test_the_default_way_to_choose_beats_random_asking(simulation: Simulation) -> None:
    curves = {curve.strategy: curve for curve in simulation.curves}
    assert set(curves) == {DEFAULT, BASELINE}
    assert curves[DEFAULT].verdict == "better"
    assert curves[DEFAULT].minus_random.mean > 0.02
    assert curves[DEFAULT].per_100.mean > curves[BASELINE].per_100.mean
    assert curves[DEFAULT].accuracy[0] == curves[BASELINE].accuracy[0], "both begin with the same labels"


def test_the_curves_are_shown_beside_random_asking_and_drawn(simulation: Simulation) -> None:
    (table,) = simulation.tables()
    assert [column.header for column in table.columns][:3] == ["strategy", "0 answers", "80 answers"]
    assert list(table.columns[0].cells) == [f"{DEFAULT} (default)", BASELINE]
    assert list(table.columns[-1].cells) == ["more", ""]
    picture = simulation.picture()
    assert picture.startswith(b"\x89PNG")
    assert len(picture) < 100_000


def test_a_curve_says_how_many_answers_random_asking_takes_and_what_is_chance() -> None:
    of_random = np.array([[0.5, 0.6, 0.7], [0.5, 0.62, 0.7], [0.5, 0.58, 0.7]])
    better, worse = (simulate._curve("x", of_random + step, of_random, [0, 50, 100]) for step in (0.05, -0.05))
    assert (better.verdict, better.of_random) == ("better", None)
    assert worse.verdict == "worse"
    assert worse.of_random == pytest.approx(75)
    assert worse.minus_random.mean == pytest.approx(-0.05)
    assert better.per_100.mean == pytest.approx(0.2)
    by_chance = simulate._curve(
        "x", of_random + np.array([[0, 0.04, 0], [0, -0.05, 0], [0, 0.01, 0]]), of_random, [0, 50, 100]
    )
    assert by_chance.verdict == "no different"
