from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any, get_args

import numpy as np
import pytest

from dlassets.labeling.selection import strategies
from dlassets.labeling.selection.k_center import k_center
from dlassets.labeling.selection.strategies import STRATEGIES, Candidates
from dlassets.settings import StrategyName
from dlassets_tests.tables import image_id

VECTORS = {"a": (1, 0), "b": (0.99, 0.1), "c": (0, 1), "d": (-1, 0), "e": (0.1, -1)}


def embedded(vectors: dict[str, Any]) -> strategies.Embed:
    def embed(image_ids: Sequence[str]) -> Any:
        found = [vectors[image] for image in image_ids if image in vectors]
        width = len(next(iter(vectors.values())))
        return np.array(found, np.float32).reshape(-1, width), np.array([i in vectors for i in image_ids], bool)

    return embed


def candidates(probabilities: Mapping[str, Sequence[float]], known: Sequence[Any] = (), **vectors: Any) -> Candidates:
    """What a model says of photos, of which each is listed with its likeliest classes."""
    rows = np.array([*probabilities.values()], float)
    return Candidates(
        [*probabilities], rows[:, 0], rows[:, 0] - rows[:, 1], rows, embedded(vectors or VECTORS), tuple, lambda: known
    )


def order(name: StrategyName, of: Candidates, number: int = 9) -> str:
    return "".join(of.image_ids[place] for place in STRATEGIES[name](of, number))


# The least sure is d, the closest two classes are those of a, and the probabilities of c tell least.
SAID = {
    "a": (0.46, 0.45, 0.09),
    "b": (0.9, 0.1, 0),
    "c": (0.4, 0.3, 0.15),
    "d": (0.39, 0.33, 0.28),
    "e": (0.99, 0.01, 0),
}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("threshold", "dcabe"),
        ("least_confidence", "dcabe"),
        ("margin", "adcbe"),
        ("entropy", "cdabe"),
    ],
)
def test_a_strategy_asks_about_the_least_sure_in_its_own_sense(name: StrategyName, expected: str) -> None:
    assert order(name, candidates(SAID)) == expected
    assert order(name, candidates(SAID), 2) == expected[:2]


def test_of_equally_unsure_photos_the_order_is_the_images() -> None:
    alike = candidates(dict.fromkeys("abcde", (0.5, 0.3)))
    assert {order(name, alike) for name in ("threshold", "margin", "entropy")} == {"abcde"}


def test_diversity_begins_far_from_what_is_known_whatever_the_model_says() -> None:
    near_a, near_c = (np.array([direction], np.float32) for direction in ((1, 0.1), (0.1, 1)))
    assert order("diversity", candidates(SAID, known=[near_a]), 2) == "de"
    assert order("diversity", candidates(SAID, known=[near_a, near_c]), 2) == "ed"
    assert order("diversity", candidates(SAID, known=[near_a, near_c, -near_c]), 1) == "d"


def test_hybrid_asks_about_unsure_photos_that_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strategies, "UNSURE_TO_ONE", 2)
    unsure = {"a": (0.5, 0.5), "b": (0.5, 0.49), "c": (0.5, 0.48), "d": (0.5, 0.47), "e": (1, 0)}
    assert order("margin", candidates(unsure), 2) == "ab", "which look alike"
    assert order("hybrid", candidates(unsure), 2) in {"ad", "ac"}
    assert order("hybrid", candidates(unsure), 1) == "a"
    waits = replace(candidates(unsure), waiting=lambda: [np.array([(1, 0)], np.float32)])
    assert order("hybrid", waits, 1) in {"c", "d"}, "where people have one like a already"


def many(photos: int, features: int = 4) -> Candidates:
    chance = np.random.default_rng(0)
    names = sorted(image_id(str(photo)) for photo in range(photos))
    listed = np.sort(chance.dirichlet(np.ones(6), photos), axis=1)[:, ::-1][:, :3]
    vectors = dict(zip(names, chance.standard_normal((photos, features)), strict=True))
    return candidates(dict(zip(names, listed, strict=True)), **vectors)


def test_every_strategy_of_the_setting_is_there_and_asks_about_each_photo_once() -> None:
    assert set(STRATEGIES) == set(get_args(StrategyName))
    photos = many(300)
    for strategy in STRATEGIES.values():
        assert sorted(strategy(photos, 300)) == list(range(300))
        some = strategy(photos, 40)
        assert len({*some.tolist()}) == len(some) == 40


def test_random_depends_on_no_prediction_and_no_other_choice_by_hash() -> None:
    photos = many(2000)
    first = STRATEGIES["random"](photos, 500)
    assert np.corrcoef(np.isin(np.arange(2000), first), photos.confidence)[0, 1] == pytest.approx(0, abs=0.06)
    for place in range(3):
        low = [photos.image_ids[photo][8 * place] < "8" for photo in first]
        assert np.mean(low) == pytest.approx(0.5, abs=0.07)


@pytest.mark.parametrize("name", ["diversity", "hybrid"])
def test_photos_without_an_embedding_come_last_the_closest_margins_first(name: StrategyName) -> None:
    assert order(name, candidates(SAID, none=(1, 1)), 4) == "adcb"
    of_some = candidates(SAID, b=(1, 0), e=(0, 1))
    assert order(name, of_some, 4)[-2:] == "ad"


@pytest.mark.parametrize("name", ["diversity", "hybrid"])
def test_no_more_embeddings_are_held_than_a_pool_has(name: StrategyName, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strategies, "POOL", 50)
    photos, asked = many(400), []

    def embed(image_ids: Sequence[str]) -> Any:
        asked.append(len(image_ids))
        return photos.embed(image_ids)

    counted = Candidates(photos.image_ids, photos.confidence, photos.margin, photos.top_k, embed)
    assert len(STRATEGIES[name](counted, 100)) == 100
    assert asked == [50]


def distances(vectors: np.ndarray) -> np.ndarray:
    """How far their directions are apart, with each feature less its mean and over its spread."""
    scaled = (vectors - vectors.mean(axis=0)) / vectors.std(axis=0)
    unit = scaled / np.linalg.norm(scaled, axis=1, keepdims=True)
    return np.linalg.norm(unit[:, None] - unit[None], axis=2)


@pytest.mark.parametrize("seed", range(5))
def test_no_photo_is_more_than_twice_as_far_from_a_center_as_with_the_best_ones(seed: int) -> None:
    vectors = np.random.default_rng(seed).standard_normal((12, 3)).astype(np.float32)
    apart = distances(vectors)
    best = min(apart[list(chosen)].min(axis=0).max() for chosen in combinations(range(12), 3))
    assert apart[k_center(vectors, 3)].min(axis=0).max() <= 2 * best + 1e-5


def test_centers_are_far_from_what_is_known_in_however_many_parts_that_comes() -> None:
    chance = np.random.default_rng(1)
    vectors = chance.standard_normal((200, 5)).astype(np.float32)
    known = vectors[::5]
    picked = k_center(vectors, 10, [known])
    assert picked[0] == distances(vectors)[:, ::5].min(axis=1).argmax()
    assert picked.tolist() == k_center(vectors, 10, [known[:7], known[:0], known[7:]]).tolist()
    scale, shift = np.array([1, 2, 3, 4, 5], np.float32), np.float32(7)
    assert picked.tolist() == k_center(vectors * scale + shift, 10, [known * scale + shift]).tolist()
