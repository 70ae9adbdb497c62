"""Who gets how many inference units."""

from __future__ import annotations

import pytest

from services.domain.hosting import Hosting
from services.hosting.units import BY_DEFAULT, admission, shares_at_start, units_for_new


def hosting(project: str, units: int, *, least: int | None = None) -> Hosting:
    return Hosting(project, "v1", f"s3://loupe-models/{project}/v1", least or units, units)


@pytest.mark.parametrize(
    ("hosted", "offered", "default", "units", "given"),
    [
        ([], 2, 1, 2, {}),  # the first project gets all
        ([("a", 2, BY_DEFAULT)], 2, 1, 1, {"a": 1}),  # the second takes one from it
        ([("a", 2, "ada")], 2, 1, 1, {}),  # but not one that a person gave; it will be refused
        ([("a", 1, BY_DEFAULT)], 2, 1, 1, {}),  # a free one is taken
        ([("a", 1, BY_DEFAULT), ("b", 1, BY_DEFAULT)], 2, 1, 1, {}),  # nobody gives the last away
        ([("a", 3, BY_DEFAULT), ("b", 5, BY_DEFAULT)], 8, 2, 2, {"b": 3}),  # the largest gives
        ([("a", 3, BY_DEFAULT), ("b", 3, BY_DEFAULT)], 6, 4, 4, {"a": 1, "b": 1}),
        ([("a", 2, BY_DEFAULT)], 2, 2, 1, {"a": 1}),  # less than the default is better than nothing
    ],
)
def test_a_new_project_gets_units(
    hosted: list[tuple[str, int, str]], offered: int, default: int, units: int, given: dict[str, int]
) -> None:
    pairs = [(hosting(name, count), by) for name, count, by in hosted]
    wanted, givers = units_for_new(pairs, offered=offered, default_units=default)
    assert wanted == units
    assert {giver.project: giver.max_units for giver in givers} == given
    assert all(giver.min_units <= giver.max_units for giver in givers)


def test_a_giver_keeps_its_minimum_while_it_can() -> None:
    _, (giver,) = units_for_new([(hosting("a", 4, least=1), BY_DEFAULT)], offered=4, default_units=2)
    assert (giver.min_units, giver.max_units) == (1, 2)


@pytest.mark.parametrize(
    ("hosted", "offered", "changed"),
    [
        ([], 2, {}),
        ([("a", 2, BY_DEFAULT)], 2, {}),
        ([("a", 2, BY_DEFAULT)], 1, {"a": 1}),  # a smaller machine
        ([("a", 2, BY_DEFAULT)], 4, {"a": 4}),  # a larger one
        ([("a", 2, "ada")], 4, {}),  # what a person gave stays
        ([("a", 2, BY_DEFAULT), ("b", 2, BY_DEFAULT)], 3, {"a": 1}),
        ([("a", 2, BY_DEFAULT), ("b", 2, BY_DEFAULT)], 1, {"a": 1, "b": 1}),
        ([("a", 1, BY_DEFAULT), ("b", 1, BY_DEFAULT)], 4, {}),
    ],
)
def test_units_are_shared_out_again_when_another_number_is_offered(
    hosted: list[tuple[str, int, str]], offered: int, changed: dict[str, int]
) -> None:
    pairs = [(hosting(name, count), by) for name, count, by in hosted]
    after = shares_at_start(pairs, offered=offered)
    assert {one.project: one.max_units for one in after} == changed


@pytest.mark.parametrize(
    ("asked", "offered", "refused"),
    [
        ({"a": 2}, 2, set()),
        ({"a": 1, "b": 1}, 2, set()),
        ({"a": 2, "b": 1}, 2, {"b"}),
        ({"a": 3, "b": 1}, 2, {"a"}),  # one that asks for too much does not stand in others' way
        ({"a": 1, "b": 2, "c": 1}, 2, {"b"}),
    ],
)
def test_who_does_not_fit_is_refused_with_the_numbers(
    asked: dict[str, int], offered: int, refused: set[str]
) -> None:
    found = admission([hosting(name, units) for name, units in asked.items()], offered)
    assert set(found) == refused
    for project, message in found.items():
        assert message.startswith(f"Needs {asked[project]} inference units; ")
        assert f"of the {offered} that the cluster offers are free" in message
