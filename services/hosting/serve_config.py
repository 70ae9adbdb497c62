"""Desired state -> the whole declarative configuration of Ray Serve; pure (arrow 7).

`serve/app.py` builds what the import paths name, and says there what does not depend on the desired
state. Stream and gateway are in it from the beginning, even with nothing hosted, so that the first
model is served as soon as its own replica is up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from services.domain.hosting import Hosting, Route, routes_in_force

Config = dict[str, Any]

STREAM, GATEWAY = "stream", "gateway"
_INSPECTOR_PREFIX = "inspector-"

# A unit takes two batches at once; with more than one on the average another unit is worth its start.
_TARGET_ONGOING_BATCHES = 1
# A unit more takes 3 s to serve; a burst that is over before then needs none.
_UPSCALE_DELAY_S = 5.0
# A unit less costs a model load when it is wanted again, so a minute of quiet is asked for.
_DOWNSCALE_DELAY_S = 60.0


def config_of(hostings: Sequence[Hosting], routes: Sequence[Route], stream_replicas: int) -> Config:
    """Return what to `PUT`; equal inputs give equal values in any order of `hostings`.

    Args:
        hostings: those that are admitted.
        routes: those that are set, in any order.
        stream_replicas: consumers of frames.
    """
    ordered = sorted(hostings, key=lambda hosting: hosting.project)
    projects = [hosting.project for hosting in ordered]
    return {
        # Serve's own doors listen on every address of the machine; the gateway has one of its own.
        "proxy_location": "Disabled",
        "applications": [
            *(_inspector(hosting) for hosting in ordered),
            _stream(projects, routes_in_force(routes, projects), stream_replicas),
            _gateway(projects),
        ],
    }


def application_of_project(project: str) -> str:
    """Return the name of a project's application."""
    return _INSPECTOR_PREFIX + project


def is_applied(config: Config, details: Mapping[str, Any]) -> bool:
    """Tell whether Serve, as its `GET` describes it, was given exactly these applications."""
    applied = {
        name: application.get("deployed_app_config")
        for name, application in details.get("applications", {}).items()
        if application.get("status") != "DELETING"
    }
    return applied == {application["name"]: application for application in config["applications"]}


def _inspector(hosting: Hosting) -> Config:
    return {
        "name": application_of_project(hosting.project),
        "import_path": "serve.app:build_inspector",
        "route_prefix": None,
        "args": {"project": hosting.project},
        "deployments": [
            {
                "name": "Inspector",
                "user_config": {
                    "project": hosting.project,
                    "version": hosting.version,
                    "uri": hosting.uri,
                },
                "autoscaling_config": {
                    "min_replicas": hosting.min_units,
                    "max_replicas": hosting.max_units,
                    "target_ongoing_requests": _TARGET_ONGOING_BATCHES,
                    "upscale_delay_s": _UPSCALE_DELAY_S,
                    "downscale_delay_s": _DOWNSCALE_DELAY_S,
                },
                # The unit alone schedules: with a CPU each, two cores would leave replicas pending.
                "ray_actor_options": {"num_cpus": 0, "resources": {"inference_unit": 1}},
            }
        ],
    }


def _stream(projects: Sequence[str], routes: Sequence[Route], replicas: int) -> Config:
    told = [
        {
            "camera_pattern": route.camera_pattern,
            "project": route.project,
            "mode": route.mode.value,
            "archive": route.archive.value,
            "deadline_s": route.deadline_s,
            "share_ratio": route.share_ratio,
            "retention": route.retention.value,
        }
        for route in routes
    ]
    return _plain(STREAM, "Stream", {"routes": told, "projects": list(projects)}, replicas)


def _gateway(projects: Sequence[str]) -> Config:
    return _plain(GATEWAY, "Gateway", {"projects": list(projects)}, 1)


def _plain(name: str, deployment: str, user_config: Config, replicas: int) -> Config:
    """Return an application that holds no inference unit."""
    return {
        "name": name,
        "import_path": f"serve.app:build_{name}",
        "route_prefix": None,
        "args": {},
        "deployments": [
            {
                "name": deployment,
                "num_replicas": replicas,
                "user_config": user_config,
                "ray_actor_options": {"num_cpus": 0},
            }
        ],
    }
