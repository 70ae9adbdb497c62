"""Inference units as Ray Serve applications `inspector-<project>` (arrow 2)."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import ray
import ray.serve as ray_serve
from ray.exceptions import ActorDiedError, RayError
from ray.serve.exceptions import BackPressureError, RayServeException

from serve.units import raise_failure
from services.domain.errors import FrameCrashesModel, ModelUnavailable, Overloaded
from services.domain.frame import Frame
from services.wire.batch import Outcome, decode_masks, decode_outcomes, encode_frames

# Ray copies an argument several times on its way; above this size its shared memory is cheaper.
REFERENCE_ABOVE_BYTES = 1 << 20
# Several batches may wait for one replica that is starting or healing; the caller tries again anyway.
CALL_TIMEOUT_S = 60.0


class RayUnits:
    """The units as Ray Serve applications `inspector-<project>`; thread-safe."""

    def __init__(self) -> None:
        """Find each application with its first call."""
        self._handles: dict[str, Any] = {}
        self._lock = threading.Lock()

    def inspect(self, project: str, frames: Sequence[Frame]) -> tuple[Outcome, ...]:
        """See `Units.inspect`."""
        # Protobuf messages of one type may be joined, lists add up. Made at once, a batch of 16 images of
        # 95 KB costs 0.3 ms a frame in growing buffers, joined 0.02.
        payload = b"".join(encode_frames([frame]) for frame in frames)
        return raise_failure(decode_outcomes(self._answer(project, payload, len(frames))))

    def inspect_with_mask(self, project: str, frame: Frame) -> tuple[Outcome, bytes]:
        """See `Units.inspect_with_mask`."""
        answer = self._answer(project, encode_frames([frame], masks=True), 1)
        (outcome,), (mask_png,) = raise_failure(decode_outcomes(answer)), decode_masks(answer)
        return outcome, mask_png

    def _answer(self, project: str, payload: bytes, count: int) -> bytes:
        """Return what a unit says of an `InspectBatch` of `count` frames."""
        try:
            argument = ray.put(payload) if len(payload) > REFERENCE_ABOVE_BYTES else payload
            return bytes(self._handle(project).inspect.remote(argument).result(timeout_s=CALL_TIMEOUT_S))
        except BackPressureError as error:
            raise Overloaded(f"The units of {project} have their queues full.") from error
        except ActorDiedError as error:
            message = f"A unit of {project} died while it judged {count} frames."
            raise FrameCrashesModel(message, frames=count) from error
        except (RayError, RayServeException, TimeoutError) as error:
            first_line = (str(error) or type(error).__name__).splitlines()[0]
            raise ModelUnavailable(f"No unit of {project} answered: {first_line}") from error

    def _handle(self, project: str) -> Any:
        with self._lock:
            handle = self._handles.get(project)
            if handle is None:
                handle = self._handles[project] = ray_serve.get_app_handle(f"inspector-{project}")
            return handle
