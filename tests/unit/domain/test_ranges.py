"""Sets as ranges do what sets of numbers do."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from services.domain.ranges import clusters, in_runs, merged, shared, without

ranges = st.lists(
    st.tuples(st.integers(0, 60), st.integers(0, 9)).map(lambda it: range(it[0], it[0] + it[1])), max_size=12
).map(lambda found: sorted(found, key=lambda one: one.start))


def numbers(found: object) -> set[int]:
    return {number for one in found for number in one}  # type: ignore[attr-defined]


@given(ranges, ranges)
def test_union_intersection_and_difference_are_those_of_sets(left: list[range], right: list[range]) -> None:
    a, b = list(merged(left)), list(merged(right))
    assert numbers(a) == numbers(left)
    assert numbers(shared(a, b)) == numbers(left) & numbers(right)
    assert numbers(without(a, b)) == numbers(left) - numbers(right)


@given(ranges, ranges)
def test_what_comes_out_rises_and_is_never_empty(left: list[range], right: list[range]) -> None:
    a, b = list(merged(left)), list(merged(right))
    for found in (a, list(shared(a, b)), list(without(a, b))):
        assert all(found)
        assert all(one.stop <= after.start for one, after in pairwise(found))


@given(ranges, st.integers(1, 20), st.integers(1, 4))
def test_clusters_hold_all_and_lie_apart(told: list[range], gap: int, most: int) -> None:
    found = list(clusters(merged(told), gap=gap, most=most))
    assert [one for together in found for one in together] == list(merged(told))
    assert all(len(together) <= most for together in found)


@given(st.sets(st.integers(0, 99)))
def test_runs_are_the_numbers(told: set[int]) -> None:
    assert numbers(in_runs(sorted(told))) == told
