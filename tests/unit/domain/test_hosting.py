"""Routes: patterns, the default route, a project named by the producer."""

from __future__ import annotations

import pytest

from services.domain.hosting import Route, route_of, routes_in_force


def test_the_only_hosted_project_has_the_default_route() -> None:
    assert [r.camera_pattern for r in routes_in_force([], ["bottles"])] == ["*"]


@pytest.mark.parametrize("hosted", [[], ["a", "b"]])
def test_there_is_no_default_route_without_or_with_several_projects(hosted: list[str]) -> None:
    assert routes_in_force([], hosted) == ()


def test_a_route_to_a_project_that_is_not_hosted_does_not_count() -> None:
    assert routes_in_force([Route("*", "gone")], ["a"]) == ()


def test_the_first_matching_pattern_wins() -> None:
    routes = (Route("line1-*", "caps"), Route("*", "rest"))
    found = [route_of(camera, None, routes, ["caps", "rest"]) for camera in ("line1-a", "line2-a")]
    assert [route.project for route in found if route] == ["caps", "rest"]


def test_a_project_named_by_the_producer_wins_if_it_is_hosted() -> None:
    routes = (Route("*", "a"),)
    found = route_of("cam", "b", routes, ["a", "b"])
    assert found is not None
    assert found.project == "b"
    assert route_of("cam", "c", routes, ["a", "b"]) is None
