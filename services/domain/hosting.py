"""Which project's model serves how many inference units, and which camera goes to which project.

Pure rules; `services.hosting` is the only one that applies them to Ray Serve (arrow 7).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from fnmatch import fnmatchcase
from functools import lru_cache
from uuid import UUID


class RouteMode(StrEnum):
    """What a route's verdicts count for."""

    LIVE = "live"  # judges, and raises events
    SHADOW = "shadow"  # judges beside the one who counts; is recorded, and raises none
    CANARY = "canary"  # judges a share of the frames instead of the live one


class ArchivePolicy(StrEnum):
    """Which frames' pixels are kept after the verdict."""

    INTERESTING = "interesting"  # anomalous, uncertain, and 1 in 100 of the rest
    ALL = "all"
    NONE = "none"


class RetentionClass(StrEnum):
    """How long kept pixels stay; after it they are deleted, and the verdict stays."""

    SHORT = "short"
    STANDARD = "standard"
    LONG = "long"
    FOREVER = "forever"


# A week to look at what went wrong, a season of production, the two years of most warranties.
RETENTION_DAYS: Mapping[RetentionClass, int | None] = {
    RetentionClass.SHORT: 7,
    RetentionClass.STANDARD: 90,
    RetentionClass.LONG: 730,
    RetentionClass.FOREVER: None,
}


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


@dataclass(frozen=True, slots=True)
class Judges:
    """Who judges one frame.

    Attributes:
        counting: whose verdict is the frame's end, live or canary; None: nobody, the frame is let go.
        shadows: who judges it as well, each another project.
    """

    counting: Route | None
    shadows: tuple[Route, ...] = ()


@dataclass(frozen=True, slots=True)
class CameraRoutes:
    """The routes that count for one camera.

    Attributes:
        live: the judge of all frames that no canary takes; None: there is none.
        canaries: each with the end of its share (0-1), which begins where the one before it ends.
        shadows: one per project.
    """

    live: Route | None
    canaries: tuple[tuple[float, Route], ...]
    shadows: tuple[Route, ...]


def routes_in_force(routes: Sequence[Route], hosted_projects: Sequence[str]) -> tuple[Route, ...]:
    """Return the routes to use, most important first.

    A route to a project that is not hosted does not count. While one project is hosted and no live route is
    set, that project has the default route `*`.
    """
    usable = [route for route in routes if route.project in hosted_projects]
    if len(hosted_projects) == 1 and not any(route.mode is RouteMode.LIVE for route in routes):
        usable.append(Route(camera_pattern="*", project=hosted_projects[0]))
    return by_importance(usable)


def by_importance(routes: Iterable[Route]) -> tuple[Route, ...]:
    """Return routes in the order in which they count: priority, then the narrower pattern, then names."""
    return tuple(sorted(routes, key=_importance))


def _importance(route: Route) -> tuple[int, int, int, str, str]:
    """Return the sort key: a pattern without wildcards is the narrowest, then the one with more letters."""
    wild = sum(letter in "*?[" for letter in route.camera_pattern)
    letters = len(route.camera_pattern) - wild
    return -route.priority, wild > 0, -letters, route.camera_pattern, route.project


class RouteTable:
    """Routes in force and who is hosted; tells who judges a frame. Thread-safe.

    Exactly one verdict of a frame counts (an inspection is unique by frame, role and run), so of all live
    routes that match a camera the first is the judge. Several models on one frame: the others by shadow
    routes, whose verdicts are told apart by their project, kept in `run`.

    Attributes:
        projects: hosted now.
    """

    def __init__(self, routes: Sequence[Route] = (), projects: Sequence[str] = ()) -> None:
        """Take routes in the order of `routes_in_force`."""
        self.projects = tuple(projects)
        self._routes = tuple(routes)
        # Cameras are few and frames are many; the bound is for producers that name each frame a camera.
        self.of_camera = lru_cache(maxsize=4096)(self._of_camera)

    def judges_of(self, frame_id: UUID, camera: str, wanted_project: str | None) -> Judges:
        """Return who judges a frame; the same for every delivery while the routes are the same.

        A project named by the producer judges, if it is hosted, whatever the patterns say; shadows look
        on all the same.
        """
        found = self.of_camera(camera)
        if wanted_project is not None:
            if wanted_project not in self.projects:
                return Judges(None)
            counting: Route | None = self._named(camera, wanted_project)
        else:
            counting = found.live
            if found.canaries:
                # The last 48 bits of the id, as a share: other bits than the archive's samples go by.
                share = frame_id.node / (1 << 48)
                counting = next((route for end, route in found.canaries if share < end), counting)
        if counting is None or not found.shadows:
            return Judges(counting)
        return Judges(counting, tuple(one for one in found.shadows if one.project != counting.project))

    def _named(self, camera: str, project: str) -> Route:
        own = (one for one in self._routes if one.project == project)
        match = next((one for one in own if fnmatchcase(camera, one.camera_pattern)), None)
        return replace(match, mode=RouteMode.LIVE) if match else Route(camera, project)

    def _of_camera(self, camera: str) -> CameraRoutes:
        routes = [route for route in self._routes if fnmatchcase(camera, route.camera_pattern)]
        end, canaries = 0.0, []
        for route in routes:
            if route.mode is RouteMode.CANARY:
                end += route.share_ratio
                canaries.append((end, route))
        shadows = {one.project: one for one in reversed(routes) if one.mode is RouteMode.SHADOW}
        return CameraRoutes(
            next((route for route in routes if route.mode is RouteMode.LIVE), None),
            tuple(canaries),
            tuple(shadows[project] for project in sorted(shadows)),
        )
