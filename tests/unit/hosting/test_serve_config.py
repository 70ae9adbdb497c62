"""The declarative configuration, whole, from the desired state."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from typing import Any

import pytest

from serve.stream import routes_of
from services.domain.hosting import (
    ArchivePolicy,
    Hosting,
    RetentionClass,
    Route,
    RouteMode,
    RouteTable,
    routes_in_force,
)
from services.hosting.serve_config import config_of, is_applied

COOKIES = Hosting("cookies", "v2", "s3://loupe-models/cookies/v2", 1, 2)
PLATES = Hosting("plates", "v1", "s3://loupe-models/plates/v1")


def applications(hostings: list[Hosting], routes: list[Route]) -> dict[str, Any]:
    return {one["name"]: one for one in config_of(hostings, routes, 1)["applications"]}


def test_stream_and_gateway_are_there_before_any_model() -> None:
    found = applications([], [])
    assert set(found) == {"stream", "gateway"}
    assert found["stream"]["deployments"][0]["user_config"] == {"routes": [], "projects": []}
    assert found["gateway"]["deployments"][0]["user_config"] == {"projects": []}


def test_no_door_of_serve_is_opened() -> None:
    config = config_of([COOKIES], [], 1)
    assert config["proxy_location"] == "Disabled"
    assert all(one["route_prefix"] is None for one in config["applications"])


def test_a_hosted_project_is_an_application_whose_replicas_are_units() -> None:
    found = applications([COOKIES], [])["inspector-cookies"]
    assert found["import_path"] == "serve.app:build_inspector"
    assert found["args"] == {"project": "cookies"}
    (deployment,) = found["deployments"]
    assert deployment["user_config"] == {"project": "cookies", "version": "v2", "uri": COOKIES.uri}
    bounds = deployment["autoscaling_config"]
    assert (bounds["min_replicas"], bounds["max_replicas"]) == (1, 2)
    assert deployment["ray_actor_options"] == {"num_cpus": 0, "resources": {"inference_unit": 1}}


def test_nothing_but_a_unit_holds_a_unit() -> None:
    found = applications([COOKIES], [])
    for name in ("stream", "gateway"):
        assert found[name]["deployments"][0]["ray_actor_options"] == {"num_cpus": 0}


def test_a_version_is_swapped_by_user_config_alone() -> None:
    before, after = (
        applications([Hosting("cookies", version, f"s3://m/{version}")], []) for version in ("v1", "v2")
    )
    changed = after["inspector-cookies"]["deployments"][0]
    changed["user_config"] = before["inspector-cookies"]["deployments"][0]["user_config"]
    assert after == before


def test_the_single_project_gets_every_camera() -> None:
    stream = applications([COOKIES], [])["stream"]["deployments"][0]
    assert stream["user_config"] == {
        "projects": ["cookies"],
        "routes": [
            {
                "camera_pattern": "*", "project": "cookies", "mode": "live", "archive": "interesting",
                "deadline_s": None, "share_ratio": 1.0, "retention": "standard",
            }
        ],
    }  # fmt: skip


def test_routes_are_told_in_order_of_importance_without_those_of_unhosted_projects() -> None:
    routes = [
        Route("*", "bottles"),
        Route("*", "cookies"),
        Route("press-*", "plates", RouteMode.SHADOW, ArchivePolicy.ALL, 2.0, retention=RetentionClass.LONG),
    ]
    told = applications([PLATES, COOKIES], routes)["stream"]["deployments"][0]["user_config"]["routes"]
    assert [(one["camera_pattern"], one["project"]) for one in told] == [
        ("press-*", "plates"),
        ("*", "cookies"),
    ]
    assert (told[0]["mode"], told[0]["archive"], told[0]["deadline_s"]) == ("shadow", "all", 2.0)
    assert (told[0]["share_ratio"], told[0]["retention"]) == (1.0, "long")


def test_the_stream_understands_what_it_is_told() -> None:
    routes = [
        Route("a*", "cookies", deadline_s=2.0, retention=RetentionClass.FOREVER, archive=ArchivePolicy.NONE),
        Route("a*", "plates", RouteMode.CANARY, share_ratio=0.1),
        Route("*", "plates", RouteMode.SHADOW, priority=-3),
    ]
    stream = applications([PLATES, COOKIES], routes)["stream"]["deployments"][0]
    understood = routes_of(json.loads(json.dumps(stream["user_config"])))
    asked, hosted = RouteTable(routes_in_force(routes, ["cookies", "plates"])), ("cookies", "plates")
    assert understood.projects == hosted
    # Priority is told by the order alone.
    plain = [replace(route, priority=0) for route in asked._routes]
    assert list(understood._routes) == plain


def test_the_order_of_hostings_does_not_matter() -> None:
    assert config_of([PLATES, COOKIES], [], 1) == config_of([COOKIES, PLATES], [], 1)


def details_of(config: dict[str, Any]) -> dict[str, Any]:
    """Return what Serve says after this configuration was put."""
    return {
        "applications": {
            one["name"]: {"status": "RUNNING", "deployed_app_config": copy.deepcopy(one)}
            for one in config["applications"]
        }
    }


@pytest.mark.parametrize("hosted", [[], [COOKIES], [COOKIES, PLATES]], ids=len)
def test_what_was_put_is_recognised(hosted: list[Hosting]) -> None:
    config = config_of(hosted, [], 1)
    assert is_applied(config, details_of(config))


def test_whatever_differs_is_noticed() -> None:
    config = config_of([COOKIES], [], 1)
    assert not is_applied(config, {"applications": {}})  # a new head
    assert not is_applied(config, {})
    assert not is_applied(config, details_of(config_of([COOKIES, PLATES], [], 1)))
    assert not is_applied(config, details_of(config_of([COOKIES], [Route("a", "cookies")], 1)))
    by_other_means = details_of(config)
    del by_other_means["applications"]["stream"]["deployed_app_config"]
    assert not is_applied(config, by_other_means)


def test_an_application_on_its_way_out_does_not_count() -> None:
    config = config_of([COOKIES], [], 1)
    details = details_of(config)
    details["applications"]["inspector-plates"] = {"status": "DELETING", "deployed_app_config": None}
    assert is_applied(config, details)
