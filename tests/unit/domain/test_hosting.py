"""Routes: patterns, priority, the default route, canaries, shadows, a project named by the producer."""

from __future__ import annotations

from uuid import UUID, uuid5

import pytest

from services.domain.frame import FRAME_NAMESPACE
from services.domain.hosting import (
    RETENTION_DAYS,
    RetentionClass,
    Route,
    RouteMode,
    RouteTable,
    routes_in_force,
)

SHADOW, CANARY = RouteMode.SHADOW, RouteMode.CANARY
IDS = [uuid5(FRAME_NAMESPACE, str(n)) for n in range(2000)]
ONE = IDS[0]


def table(*routes: Route, hosted: str = "a b c") -> RouteTable:
    projects = hosted.split()
    return RouteTable(routes_in_force(routes, projects), projects)


def judge(
    routes: RouteTable, camera: str = "cam", wanted: str | None = None, frame: UUID = ONE
) -> str | None:
    counting = routes.judges_of(frame, camera, wanted).counting
    return counting.project if counting else None


def test_the_only_hosted_project_has_the_default_route() -> None:
    assert [r.camera_pattern for r in routes_in_force([], ["bottles"])] == ["*"]


def test_a_shadow_route_does_not_take_the_default_route_away() -> None:
    assert judge(table(Route("*", "b", SHADOW), hosted="a")) == "a"


@pytest.mark.parametrize("hosted", [[], ["a", "b"]])
def test_there_is_no_default_route_without_or_with_several_projects(hosted: list[str]) -> None:
    assert routes_in_force([], hosted) == ()


def test_a_route_to_a_project_that_is_not_hosted_does_not_count() -> None:
    assert routes_in_force([Route("*", "gone")], ["a"]) == ()
    assert judge(table(Route("cam", "gone"), Route("*", "b"))) == "b"


def test_the_narrower_pattern_wins_and_priority_before_it() -> None:
    routes = [Route("*", "a"), Route("line1-*", "b"), Route("line1-7", "c")]
    found = table(*routes)
    assert [judge(found, camera) for camera in ("line1-7", "line1-8", "door")] == ["c", "b", "a"]
    important = table(*routes, Route("line?-*", "a", priority=1))
    assert judge(important, "line1-7") == "a"


def test_equal_routes_have_an_order_that_never_changes() -> None:
    routes = [Route("x*", "b"), Route("x*", "a"), Route("*x", "c")]
    assert routes_in_force(routes, ["a", "b", "c"]) == routes_in_force(routes[::-1], ["a", "b", "c"])


def test_a_camera_that_no_live_route_matches_has_no_judge_whatever_shadows_say() -> None:
    found = table(Route("line-*", "a"), Route("*", "b", SHADOW)).judges_of(ONE, "door", None)
    assert (found.counting, found.shadows) == (None, ())


def test_a_project_named_by_the_producer_wins_if_it_is_hosted() -> None:
    routes = table(Route("*", "a"), Route("c*", "b", SHADOW, deadline_s=3.0), hosted="a b")
    found = routes.judges_of(ONE, "cam", "b")
    # Its own settings count, its mode does not; and it is not its own shadow.
    assert found.counting == Route("c*", "b", deadline_s=3.0)
    assert found.shadows == ()
    assert judge(routes, wanted="c") is None


def test_shadows_judge_as_well_each_project_once() -> None:
    routes = table(
        Route("*", "a"), Route("*", "a", SHADOW), Route("*", "b", SHADOW),
        Route("cam", "b", SHADOW, deadline_s=1.0), Route("*", "c", SHADOW),
    )  # fmt: skip
    found = routes.judges_of(ONE, "cam", None)
    assert [(one.project, one.deadline_s) for one in found.shadows] == [("b", 1.0), ("c", None)]


def test_a_canary_takes_its_share_and_keeps_it_when_the_share_grows() -> None:
    def share(ratio: float) -> set[UUID]:
        routes = table(Route("*", "a"), Route("*", "b", CANARY, share_ratio=ratio))
        return {one for one in IDS if judge(routes, frame=one) == "b"}

    tenth, half = share(0.1), share(0.5)
    # Binomial(2000, p): 0.1 gives 200 +- 13, 0.5 gives 1000 +- 22; five deviations.
    assert abs(len(tenth) - 200) < 67
    assert abs(len(half) - 1000) < 112
    assert tenth < half
    assert share(0) == set()
    assert share(1) == set(IDS)


def test_several_canaries_have_different_frames() -> None:
    routes = table(
        Route("*", "a"), Route("*", "b", CANARY, share_ratio=0.3), Route("*", "c", CANARY, share_ratio=0.3)
    )
    judged = [judge(routes, frame=one) for one in IDS]
    for project, expected in (("a", 800), ("b", 600), ("c", 600)):
        assert abs(judged.count(project) - expected) < 110


def test_any_number_of_camera_names_takes_bounded_memory() -> None:
    routes = table(Route("*", "a"))
    for number in range(10_000):
        routes.judges_of(ONE, f"cam-{number}", None)
    assert routes.of_camera.cache_info().currsize <= 4096


def test_every_class_of_retention_has_its_days() -> None:
    assert set(RETENTION_DAYS) == set(RetentionClass)
