"""A camera as data: what it films, how its frames are treated, and how it does (arrow 1).

Pure; `services.ingest` runs cameras and is the only one that opens sources.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

# Parameters of an address that devices take passwords by, as in `?user=admin&pwd=…`.
_SECRET_PARAMETER = re.compile(
    r"(?P<name>[?&;][^=&;]*(?:pass|pwd|token|secret|key|auth)[^=&;]*=)[^&;#]*", re.IGNORECASE
)


def shown_source(source: str) -> str:
    """Return a source as people and logs may see it: passwords among its parameters are blotted out."""
    return _SECRET_PARAMETER.sub(r"\g<name>***", source) if "://" in source else source


class ShedPolicy(StrEnum):
    """What happens to a camera's frames while the spool is full."""

    BLOCK = "block"  # the source waits: for folders, S3 and HTTP pushes, whose pixels wait elsewhere
    DROP_OLDEST = "drop-oldest"  # the newest pictures matter most
    DROP_NEWEST = "drop-newest"  # the first pictures matter most
    SAMPLE = "sample"  # from half full on ever fewer frames are kept, so that the whole outage is seen


class OriginalPolicy(StrEnum):
    """Which originals are kept where a camera crops or scales down."""

    NONE = "none"
    SAMPLE = "sample"  # 1 in 100
    ALL = "all"


class CameraState(StrEnum):
    """How a camera does; each is told to people with a sentence."""

    NEW = "new"  # no ingester has taken it yet
    WAITING = "waiting"  # every place of the ingesters is taken
    PAUSED = "paused"
    STARTING = "starting"
    RUNNING = "running"
    ENDED = "ended"  # a source with an end (a film, a folder shown once) is through
    # It gives pictures, but they are not what they should be.
    SILENT = "silent"
    FROZEN = "frozen"
    DARK = "dark"
    BLURRED = "blurred"
    # It gives pictures, and they wait or are let go.
    SPOOLING = "spooling"  # Kafka is away: frames wait on disk
    SHEDDING = "shedding"  # the spool is full: frames are dropped by policy
    # It gives no pictures; tried again with growing pauses.
    UNREACHABLE = "unreachable"
    UNAUTHORIZED = "unauthorized"
    UNKNOWN_CODEC = "unknown-codec"
    SOURCE_GONE = "source-gone"  # the folder, file, bucket or device is not there (any more)
    DISK_FULL = "disk-full"
    HANGING = "hanging"  # nothing came back in time; its process was ended and is started anew
    HELD_ELSEWHERE = "held-elsewhere"  # another ingester runs this camera id
    MISCONFIGURED = "misconfigured"  # its settings contradict each other; waits for a change
    FAILED = "failed"  # a fault that nobody foresaw


# States in which somebody should look at the camera; entering and leaving one is an event.
TROUBLED = frozenset(CameraState) - {
    CameraState.NEW, CameraState.WAITING, CameraState.PAUSED, CameraState.STARTING, CameraState.RUNNING,
    CameraState.ENDED,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Area:
    """Region of interest: shares of the picture's width and height (0-1), origin top left."""

    left_ratio: float
    top_ratio: float
    width_ratio: float
    height_ratio: float


@dataclass(frozen=True, slots=True)
class Camera:
    """One camera as configured.

    Attributes:
        camera: its id; the key of its records.
        source: what it films, without any password: a folder, `s3://bucket/prefix`, a film or
            `rtsp://…` or `usb:/dev/video0`, `push:`, `synthetic:SEED`.
        fps: frames per second at most; None: as the source gives them.
        project: project that is to judge; None lets routes decide.
        is_paused: configured, and not to run.
        loop: begin again when the source has ended.
        is_triggered: takes a picture only when a record on `loupe.triggers` asks for one.
        area: part of the picture that is published; None: all of it.
        longest_side_px: scaled down to this; None: as it is.
        keep_original: which originals are kept where `area` or `longest_side_px` change the picture.
        name_pattern: regular expression with the groups `part_id` and `lot_id`, searched in file names.
        keeps_files: leave taken files where they are instead of moving them to `done/`.
        silent_after_s: no picture for this long is an event; None: never.
        shed: what to do while the spool is full.
    """

    camera: str
    source: str
    fps: float | None = None
    project: str | None = None
    is_paused: bool = False
    loop: bool = False
    is_triggered: bool = False
    area: Area | None = None
    longest_side_px: int | None = None
    keep_original: OriginalPolicy = OriginalPolicy.NONE
    name_pattern: str | None = None
    keeps_files: bool = False
    silent_after_s: float | None = None
    shed: ShedPolicy = ShedPolicy.DROP_OLDEST
