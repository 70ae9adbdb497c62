"""What one camera's run is asked to do, and how far it is: values between the ingester and who starts it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from services.domain.camera import CameraState, OriginalPolicy, ShedPolicy
from services.domain.errors import BadRequest
from services.domain.ledger import ShedReason
from services.ingest.sources import Source

MAX_FPS = 1000.0


class Reframed(Protocol):
    """A part of a picture, or a smaller one."""

    @property
    def image(self) -> bytes:
        """Encoded bytes."""
        ...

    @property
    def content_type(self) -> str:
        """Media type."""
        ...

    @property
    def area(self) -> str | None:
        """What of the original it shows: left, top, width, height as shares (0-1), by comma; None: all."""
        ...


class Edge(Protocol):
    """Crops or scales pictures before they are published."""

    def apply(self, image: bytes) -> Reframed | None:
        """Return what is to be published instead of `image`; None: publish it as it is.

        Raises:
            UnreadableImage: these bytes are no image; they are published as they are, for the stream
                to quarantine.
        """
        ...


class PictureHealth(Protocol):
    """Tells from pictures how a camera does."""

    def look(self, image: bytes, now_s: float) -> CameraState | None:
        """Return what is wrong with the camera's pictures; None: nothing. Called once a second at most."""
        ...


@dataclass(frozen=True)
class CameraSpec:
    """One camera to run.

    Attributes:
        camera: its id.
        source: what it sees.
        fps: frames per second at most; None: as the source gives them.
        project: project that is to judge its frames; None lets routes decide.
        count: stop after so many frames; None: when the source ends.
        shed: what to do while the spool is full.
        edge: crops or scales; None: pictures are published as they are.
        keep_original: which originals are kept where `edge` changes a picture.
        health: looks at the pictures; None: nobody does.
    """

    camera: str
    source: Source
    fps: float | None = None
    project: str | None = None
    count: int | None = None
    shed: ShedPolicy = ShedPolicy.BLOCK
    edge: Edge | None = None
    keep_original: OriginalPolicy = OriginalPolicy.NONE
    health: PictureHealth | None = None

    def __post_init__(self) -> None:
        if not self.camera.strip() or len(self.camera) > 128 or not self.camera.isprintable():
            raise BadRequest("A camera id has 1 to 128 printable characters.")
        if self.fps is not None and not 0 < self.fps <= MAX_FPS:
            raise BadRequest(f"Frames per second are above 0 and at most {MAX_FPS:g}, not {self.fps:g}.")
        if self.count is not None and self.count < 1:
            raise BadRequest(f"The number of frames is at least 1, not {self.count}.")


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a camera's run is.

    Attributes:
        captured: frames that got a sequence.
        acknowledged: of these, taken by Kafka.
        shed: of these, declared shed.
        shed_by_reason: the same, by reason.
        fps: captured frames per second over the last seconds.
        spooled_frames: the camera's frames on disk that Kafka does not have, of earlier runs too.
        spooled_bytes: their size.
        oldest_s: age of the oldest of them; 0 if there is none.
        last_frame_at: when the last frame was captured; None: none yet.
        picture: what is wrong with its pictures; None: nothing, or nobody looks.
        is_shedding: frames were let go by policy in the last seconds.
        is_disk_full: the last frame waits for room on the disk.
        is_declared: Kafka has all frames, and the ledger knows of all of the above.
    """

    camera: str
    epoch: str = ""
    captured: int = 0
    acknowledged: int = 0
    shed: int = 0
    shed_by_reason: Mapping[ShedReason, int] = field(default_factory=dict)
    fps: float = 0.0
    spooled_frames: int = 0
    spooled_bytes: int = 0
    oldest_s: float = 0.0
    last_frame_at: datetime | None = None
    picture: CameraState | None = None
    is_shedding: bool = False
    is_disk_full: bool = False
    is_declared: bool = False


ProgressCallback = Callable[[Progress], None]


def ignore_progress(_: Progress) -> None:
    """Nobody watches."""
