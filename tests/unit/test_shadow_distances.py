"""Distances, against their definitions summed by brute force and values from the literature."""

import math
from itertools import permutations

import pytest
from scipy.spatial.distance import jensenshannon

from modelrollout.shadow.distances import cosine, jensen_shannon, overlap, rank_biased_overlap


def test_divergence_is_the_square_of_scipys_distance():
    one, other = [0.7, 0.2, 0.1], [0.1, 0.3, 0.6]

    assert jensen_shannon(one, other) == pytest.approx(jensenshannon(one, other, base=2) ** 2)


def test_divergence_is_0_for_equal_and_1_for_disjoint_distributions():
    assert jensen_shannon([0.4, 0.6], [0.4, 0.6]) == 0
    assert jensen_shannon([1, 0], [0, 1]) == 1


def test_divergence_minds_neither_a_zero_nor_the_smallest_number():
    assert 0 <= jensen_shannon([5e-324, 1.0], [0.0, 1.0]) < 1e-300


def test_cosine_of_right_opposite_and_equal_directions():
    assert cosine([1, 0], [0, 2]) == 0
    assert cosine([1, 2], [-2, -4]) == pytest.approx(-1)
    assert cosine([1, 2, 3], [10, 20, 30]) == pytest.approx(1)


def test_cosine_of_zero_vectors():
    assert cosine([0, 0], [0, 0]) == 1
    assert cosine([0, 0], [0, 1]) == 0


@pytest.mark.parametrize("size", [1.7e308, 1e200, 1e-200, 5e-324])
def test_cosine_minds_neither_large_nor_small_numbers(size):
    assert cosine([size, size], [size, size]) == pytest.approx(1)
    assert cosine([size, 0], [size, size]) == pytest.approx(math.sqrt(0.5))


def test_overlap_is_a_share_of_the_depth_and_of_shorter_lists():
    assert overlap("abcd", "badx", 2) == 1
    assert overlap("abcd", "abxy", 4) == 0.5
    assert overlap("ab", "abcd", 4) == 0.5
    assert overlap("", "", 4) == 1


def overlaps_to_any_depth(one, other, persistence, depth=400):
    """The definition (Webber and others, equation 4), the lists continued by what both lack."""
    total = 0.0
    for d in range(1, depth + 1):
        common = len(set(one[:d]) & set(other[:d]))
        total += persistence ** (d - 1) * common / d
    return (1 - persistence) * total


def test_rank_biased_overlap_of_whole_permutations_is_its_definition():
    """Permutations of the same items agree wholly from their length on; so they are continued."""
    for other in permutations("abcd"):
        one = tuple("abcd")
        more = tuple(f"x{i}" for i in range(396))

        expected = overlaps_to_any_depth(one + more, other + more, 0.9)
        assert rank_biased_overlap(one, other, 4, 0.9) == pytest.approx(expected, abs=1e-12)


def test_rank_biased_overlap_of_a_list_and_its_beginning_is_1():
    """What is missing is taken to go on as before, and before they agreed."""
    assert rank_biased_overlap("abc", "abcdef", 6, 0.8) == pytest.approx(1)


def test_rank_biased_overlap_of_lists_of_two_lengths_is_the_published_sum():
    """Equation 32 written out: s = 2, l = 3, agreements 0, 1 and 2 at depths 1, 2 and 3."""
    p = 0.5
    agreements, shorter, longer = [0, 1, 2], 2, 3
    total = sum(x / d * p**d for d, x in enumerate(agreements, 1))
    total += 1 * (3 - shorter) / (shorter * 3) * p**3
    tail = ((2 - 1) / longer + 1 / shorter) * p**3

    expected = (1 - p) / p * total + tail
    assert rank_biased_overlap("ab", "cab", 3, p) == pytest.approx(expected)


def test_rank_biased_overlap_minds_the_top_most():
    swapped_on_top = rank_biased_overlap("bacdef", "abcdef", 6, 0.9)
    swapped_below = rank_biased_overlap("abcdfe", "abcdef", 6, 0.9)

    assert swapped_on_top < swapped_below < 1


def test_nothing_has_nothing_in_common_with_something():
    assert rank_biased_overlap("", "a", 3, 0.9) == 0
    assert rank_biased_overlap("", "", 3, 0.9) == 1
    assert math.isclose(rank_biased_overlap("a", "b", 3, 0.9), 0)
