"""Which project's model serves how many inference units, and which camera goes to which project.

Pure rules; `services.hosting` is the only one that applies them to Ray Serve (arrow 7).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase


class RouteMode(StrEnum):
    """What a route's verdicts count for."""

    LIVE = "live"
    SHADOW = "shadow"
    CANARY = "canary"


class ArchivePolicy(StrEnum):
    """Which frames' pixels are kept after the verdict."""

    INTERESTING = "interesting"  # anomalous, uncertain, and 1 in 100 of the rest
    ALL = "all"
    NONE = "none"


class RetentionClass(StrEnum):
    """How long kept pixels stay; after it they are deleted, and the verdict stays."""

    SHORT = "short"  # 7 days
    STANDARD = "standard"  # 90 days
    LONG = "long"  # 730 days
    FOREVER = "forever"


class HostingStatus(StrEnum):
    """How far the desired state of one project has come."""

    STARTING_HOSTING = "STARTING_HOSTING"
    HOSTED = "HOSTED"
    HOSTING_FAILED = "HOSTING_FAILED"


@dataclass(frozen=True, slots=True)
class Hosting:
    """Desired state of one project's serving.

    Attributes:
        version: model version to serve.
        uri: `s3://bucket/prefix` of its folder.
        min_units: inference units that always run.
        max_units: inference units at most; equal to `min_units` until autoscaling arrives.
    """

    project: str
    version: str
    uri: str
    min_units: int = 1
    max_units: int = 1


@dataclass(frozen=True, slots=True)
class Route:
    """Frames of cameras that match `camera_pattern` (shell pattern) go to `project`.

    Attributes:
        share_ratio: share of the frames (0-1) that a canary judges; 1 for the other modes.
        retention: how long the kept pixels stay.
        deadline_s: frames older than this when their turn comes are declared shed; None: never.
        priority: among routes that match a camera the highest counts.
    """

    camera_pattern: str
    project: str
    mode: RouteMode = RouteMode.LIVE
    archive: ArchivePolicy = ArchivePolicy.INTERESTING
    deadline_s: float | None = None
    share_ratio: float = 1.0
    retention: RetentionClass = RetentionClass.STANDARD
    priority: int = 0


def routes_in_force(routes: Sequence[Route], hosted_projects: Sequence[str]) -> tuple[Route, ...]:
    """Return the routes to use: those set, or the default `*` while one project is hosted."""
    usable = tuple(route for route in routes if route.project in hosted_projects)
    if not routes and len(hosted_projects) == 1:
        return (Route(camera_pattern="*", project=hosted_projects[0]),)
    return usable


def route_of(
    camera: str, wanted_project: str | None, routes: Sequence[Route], hosted_projects: Sequence[str]
) -> Route | None:
    """Return the route of a frame, None when nobody is to judge it.

    A project named by the producer wins over patterns, if it is hosted.
    """
    if wanted_project is not None:
        if wanted_project not in hosted_projects:
            return None
        own = (r for r in routes if r.project == wanted_project and fnmatchcase(camera, r.camera_pattern))
        return next(own, Route(camera_pattern=camera, project=wanted_project))
    return next((r for r in routes if fnmatchcase(camera, r.camera_pattern)), None)
