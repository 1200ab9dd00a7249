"""Groups of near duplicates, beside comparing every hash with every other."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlassets.images.near_duplicates import DISTANCE, groups, mirrored, nearest


def by_comparing_all(hashes, distance):
    left, found = set(range(len(hashes))), []
    while left:
        group = frontier = {left.pop()}
        while frontier:
            frontier = {
                other
                for other in left
                if any(((hashes[one] ^ hashes[other]) & (2**64 - 1)).bit_count() <= distance for one in frontier)
            }
            left -= frontier
            group = group | frontier
        if len(group) > 1:
            found.append(sorted(names(len(hashes))[i] for i in group))
    return sorted(found, key=lambda group: (-len(group), group))


def names(number):
    return [f"image {i:06d}" for i in range(number)]


def flipped(value, bits):
    for bit in bits:
        value ^= 1 << bit
    return value - 2**64 if value >= 2**63 else value


@st.composite
def families(draw):
    """Hashes of a few originals and of copies that differ in a few bits, some far from the next and some in a chain."""
    originals = draw(st.lists(st.integers(0, 2**64 - 1) | st.sampled_from([0, 2**64 - 1]), min_size=1, max_size=5))
    change = st.lists(st.integers(0, 63), max_size=9)
    copies = draw(st.lists(st.tuples(st.sampled_from(originals), change), max_size=25))
    return [flipped(original, ()) for original in originals] + [flipped(*copy) for copy in copies]


@settings(max_examples=150, deadline=None)
@given(hashes=families(), distance=st.integers(0, 8))
def test_groups_are_those_that_comparing_all_finds(hashes, distance):
    assert groups(names(len(hashes)), hashes, distance) == by_comparing_all(hashes, distance)


def test_largest_groups_come_first_and_images_alone_are_in_none():
    one, other, alone = 0b1111, 0xFF << 40, -1

    found = groups(["d", "a", "c", "b", "e", "f"], [one, other, other ^ 1, one, alone, one ^ 2])

    assert found == [["b", "d", "f"], ["a", "c"]]


@pytest.mark.parametrize("number", [0, 1])
def test_too_few_images_for_a_group_make_none(number):
    assert groups(names(number), [7] * number) == []


def test_a_distance_that_cannot_be_is_refused():
    with pytest.raises(ValueError, match="0 to 62"):
        groups(["a"], [1], 63)


@pytest.mark.parametrize("bits", [0, 3, 6], ids=["equal", "within 6 bits of each other", "within 12"])
def test_many_that_are_alike_are_not_compared_all_with_all(bits):
    """100,000 blank pictures would be 5,000,000,000 pairs, for each of the masks."""
    rng = np.random.default_rng(bits)
    hashes = np.zeros(100_000, np.uint64)
    for _ in range(bits):
        hashes ^= np.uint64(1) << rng.integers(0, 64, hashes.size, dtype=np.uint64)

    (found,) = groups(names(hashes.size), hashes.view(np.int64))

    assert len(found) == hashes.size


def test_of_many_random_hashes_the_planted_pair_is_found():
    hashes = np.random.default_rng(1).integers(-(2**63), 2**63, 100_000)
    hashes[70_000] = flipped(int(hashes[5]) & (2**64 - 1), range(0, 13 * DISTANCE, 13))

    assert groups(names(hashes.size), hashes) == [["image 000005", "image 070000"]]


def test_the_nearest_is_found_and_of_several_the_first() -> None:
    known = [0b1111_0000, 0b0000_0011, 0b0000_0101, -1]

    which, bits = nearest([0b0000_0001, 0b1111_0001, -2, 0b1010_1010_1010], known, 2)

    assert which.tolist() == [1, 0, 3, -1]
    assert bits.tolist() == [1, 1, 1, -1]
    assert nearest([1, 2], [], 2)[0].tolist() == [-1, -1]


def test_what_is_in_a_mirror_of_a_mirror_is_as_it_was() -> None:
    hashes = np.random.default_rng(0).integers(-(2**63), 2**63, 5)

    assert (mirrored(mirrored(hashes)) == hashes).all()
    assert (np.bitwise_count((mirrored(hashes) ^ hashes).view(np.uint64)) == 32).all()
