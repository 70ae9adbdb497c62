"""What a source gives, and what becomes of it (arrow 1). Every source and the ingester keep to this."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from threading import Event
from typing import Protocol
from uuid import UUID

from services.domain.ledger import ShedReason


@dataclass(frozen=True, slots=True)
class Settled:
    """A shot that is accounted for, whatever happens next: it is on disk or in Kafka, or declared shed.

    Attributes:
        frame_id: its id.
        shed: why it was let go; None: it was accepted.
    """

    frame_id: UUID
    shed: ShedReason | None = None


def _nothing(_: Settled) -> None:
    """Nothing to do."""


@dataclass(frozen=True, slots=True)
class Shot:
    """One image, as the camera gave it.

    Attributes:
        image: encoded bytes.
        content_type: media type; a claim, not a fact.
        subject: file name or part id.
        captured_at: aware UTC; None: now.
        receipt: names what was captured (a path with its time of change, an object with its ETag), so that
            an ingester that dies before `on_settled` has run does not capture it a second time; None: a
            picture that nobody can capture twice.
        on_settled: called once, by the ingester's thread, when it is accounted for: move the file,
            answer the client. Must not raise.
        traceparent: W3C trace context.
    """

    image: bytes
    content_type: str
    subject: str
    part_id: str | None = None
    lot_id: str | None = None
    captured_at: datetime | None = None
    receipt: str | None = None
    on_settled: Callable[[Settled], None] = _nothing
    traceparent: str | None = None


@dataclass(frozen=True, slots=True)
class Unreadable:
    """An image that was there and could not be read; it takes a sequence and is declared shed.

    Attributes:
        subject: file name or part id.
        reason: a sentence.
        on_settled: see `Shot`.
        receipt: see `Shot`.
        shed: as what it is declared.
    """

    subject: str
    reason: str
    on_settled: Callable[[Settled], None] = _nothing
    receipt: str | None = None
    shed: ShedReason = ShedReason.UNREADABLE_SOURCE


@dataclass(frozen=True, slots=True)
class Skipped:
    """Pictures that the source gave and that were passed over; they take sequences and are declared shed."""

    count: int


Taken = Shot | Unreadable | Skipped
# Tells by its receipt what became of a picture that was captured before; None: it was not.
CapturedBefore = Callable[[str], Settled | None]


def never_captured(_: str) -> Settled | None:
    """Nothing was captured before."""
    return None


class Source(Protocol):
    """A stream of images; used by one thread, opened by `shots` and closed when that ends."""

    def shots(self, stop: Event) -> Iterator[Taken | None]:
        """Yield images, and None at least twice a second while there is nothing new; end when `stop` is set.

        Ends by itself only when the source has an end. May block half a second at most.

        Raises:
            SourceUnavailable: it cannot be read now; its `state` says how. May be opened again later.
            BadRequest: it can never be read as configured.
        """
        ...
