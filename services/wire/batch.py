"""What travels between the stream and an inference unit: batches of frames and their outcomes (arrow 2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from services.domain.frame import Frame
from services.domain.inspection import Inspection
from services.wire import frame as frame_wire
from services.wire import inspection as inspection_wire
from services.wire.gen.loupe.v1 import inspector_pb2


@dataclass(frozen=True, slots=True)
class Rejection:
    """A frame that will never have a verdict: error name and plain sentence."""

    cause: str
    reason: str


Outcome = Inspection | Rejection


def encode_frames(frames: Sequence[Frame], *, masks: bool = False) -> bytes:
    """Return the bytes of an `InspectBatch`; `masks`: also draw the mask of each frame."""
    batch = inspector_pb2.InspectBatch(frames=[frame_wire.to_message(f) for f in frames], masks=masks)
    return batch.SerializeToString()


def decode_frames(payload: bytes) -> tuple[tuple[Frame, ...], bool]:
    """Return the frames of an `InspectBatch`, and whether masks are asked for."""
    batch = inspector_pb2.InspectBatch.FromString(payload)
    return tuple(frame_wire.from_message(message) for message in batch.frames), batch.masks


def encode_outcomes(outcomes: Sequence[Outcome], masks: Sequence[bytes] | None = None) -> bytes:
    """Return the bytes of an `InspectBatchResult`, one result per frame, in order, with masks if any."""
    message = inspector_pb2.InspectBatchResult()
    for outcome, mask_png in zip(outcomes, masks or [b""] * len(outcomes), strict=True):
        result = message.results.add(mask_png=mask_png)
        if isinstance(outcome, Rejection):
            result.rejection.cause, result.rejection.reason = outcome.cause, outcome.reason
        else:
            result.inspection.CopyFrom(inspection_wire.to_message(outcome))
    return message.SerializeToString()


def decode_masks(payload: bytes) -> tuple[bytes, ...]:
    """Return the masks of an `InspectBatchResult` as PNG, in the order of the frames; empty where none is."""
    return tuple(result.mask_png for result in inspector_pb2.InspectBatchResult.FromString(payload).results)


def decode_outcomes(payload: bytes) -> tuple[Outcome, ...]:
    """Return the outcomes of an `InspectBatchResult`, in the order of the frames."""
    return tuple(
        inspection_wire.from_message(result.inspection)
        if result.WhichOneof("outcome") == "inspection"
        else Rejection(result.rejection.cause, result.rejection.reason)
        for result in inspector_pb2.InspectBatchResult.FromString(payload).results
    )
