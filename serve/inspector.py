"""The one core behind Kafka and gRPC: decode, infer, judge (arrow 2).

A batch of frames goes in, one outcome per frame comes out in the same order. A frame that cannot be
decoded is rejected alone. Does not retry, store or publish; its callers do. Without a stack `loupe inspect`
judges by the same functions of `services.vision` (`services.embedded.judges`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from serve.model_watch import ModelWatch, WantedVersion
from serve.triton import ServedModel
from serve.units import failure_of
from services.adapters.clock import Clock
from services.domain.errors import FrameCrashesModel, LoupeError, ModelUnavailable, Rejected
from services.domain.frame import Frame
from services.domain.inspection import Inspection
from services.domain.model_version import Manifest
from services.vision.decode import Decoded, decode
from services.vision.outputs import ImageOutputs
from services.vision.scoring import Judgement, judge
from services.vision.type_masks import mask_png
from services.vision.verdict import input_size_px, inspection_of
from services.wire.batch import Outcome, Rejection, decode_frames, encode_outcomes

logger = logging.getLogger(__name__)

# One batch is decoded while the model runs another; more would only wait.
CALLS_AT_ONCE = 2
# A unit whose model cannot be healed for this long, with the server up, is replaced as a whole.
HOPELESS_AFTER_S = 60.0


class InspectorCore:
    """Judges batches with the version that `watch` serves; thread-safe."""

    def __init__(self, watch: ModelWatch, clock: Clock, *, threads: int, unit: str) -> None:
        """Decode on `threads` threads; `unit` names this replica in its verdicts."""
        self.watch = watch
        self._clock = clock
        self._unit = unit
        self._decoders = ThreadPoolExecutor(threads, "decode")

    def inspect(self, frames: Sequence[Frame]) -> tuple[Outcome, ...]:
        """Judge at most 16 frames; the outcomes stand in their order. Blocks.

        Raises:
            ModelUnavailable: no model, or one that is being healed; nothing was tried.
            FrameCrashesModel: the model failed on this batch although it was healthy before.
        """
        return self._judge(frames, None)

    def inspect_with_masks(self, frames: Sequence[Frame]) -> tuple[tuple[Outcome, ...], tuple[bytes, ...]]:
        """Judge like `inspect`, and return each frame's mask as PNG, empty where it has no verdict."""
        masks: list[bytes] = []
        outcomes = self._judge(frames, masks)
        drawn = iter(masks)
        return outcomes, tuple(b"" if isinstance(one, Rejection) else next(drawn) for one in outcomes)

    def _judge(self, frames: Sequence[Frame], masks: list[bytes] | None) -> tuple[Outcome, ...]:
        """Judge; `masks` takes those of readable frames, None: they are not drawn."""
        with self.watch.current() as model:
            if model.problem is not None:
                raise ModelUnavailable(model.problem)  # before the work of decoding
            began_s = self._clock.monotonic_s()
            size_px = input_size_px(model.manifest)
            decoded = list(self._decoders.map(lambda frame: _decode(frame, size_px), frames))
            decoded_s = self._clock.monotonic_s()
            readable = [one for one in decoded if isinstance(one, Decoded)]
            outputs = list(self._infer(model, readable))
            inferred_s = self._clock.monotonic_s()
            verdicts = iter([(one, judge(one, model.manifest)) for one in outputs])
            if masks is not None:
                masks += [
                    mask_png(one, model.manifest, (seen.width_px, seen.height_px))
                    for one, seen in zip(outputs, readable, strict=True)
                ]
            # Every frame waited for the whole batch, so each stage counts in full for each.
            stage_ms = {
                "decode": (decoded_s - began_s) * 1000,
                "infer": (inferred_s - decoded_s) * 1000,
                "score": (self._clock.monotonic_s() - inferred_s) * 1000,
            }
            return tuple(
                one
                if isinstance(one, Rejection)
                else self._inspection(frame, one, model.manifest, *next(verdicts), stage_ms)
                for frame, one in zip(frames, decoded, strict=True)
            )

    def _infer(self, model: ServedModel, decoded: Sequence[Decoded]) -> Iterable[ImageOutputs]:
        if not decoded:
            return ()
        try:
            # (N, H, W, 3) uint8, in the order of the frames
            return model.infer(np.stack([one.pixels for one in decoded]))
        except FrameCrashesModel:
            self.watch.report_failure()
            raise

    def _inspection(
        self,
        frame: Frame,
        decoded: Decoded,
        manifest: Manifest,
        outputs: ImageOutputs,
        judgement: Judgement,
        stage_ms: Mapping[str, float],
    ) -> Inspection:
        now = self._clock.now()
        return inspection_of(
            frame, decoded, manifest, outputs, judgement, judged_at=now, stage_ms=stage_ms, unit=self._unit
        )

    def close(self) -> None:
        """Unload the model."""
        self.watch.close()
        self._decoders.shutdown(wait=False)


def _decode(frame: Frame, size_px: tuple[int, int]) -> Decoded | Rejection:
    try:
        return decode(frame.image, size_px)
    except Rejected as error:
        return Rejection(error.cause, error.message)


class Inspector:
    """The Serve deployment of one project: one replica is one inference unit."""

    def __init__(self, make_core: Callable[[str], InspectorCore], project: str) -> None:
        """Build the core; the model comes with `reconfigure`, before the first call."""
        self._core = make_core(project)
        self._core.watch.start()
        self._calls = ThreadPoolExecutor(CALLS_AT_ONCE, "inspect")

    async def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Follow `{project, version, uri}`; returns at once unless it is the first."""
        await asyncio.to_thread(self._core.watch.follow, WantedVersion(**user_config))

    async def inspect(self, payload: bytes) -> bytes:
        """Judge a batch as `serve.units` encodes it; errors travel in the answer."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._calls, self._answer, payload)

    def _answer(self, payload: bytes) -> bytes:
        frames, is_masked = decode_frames(payload)
        try:
            if is_masked:
                return encode_outcomes(*self._core.inspect_with_masks(frames))
            return encode_outcomes(self._core.inspect(frames))
        except LoupeError as error:
            return encode_outcomes(failure_of(error, len(frames)))
        except Exception as error:
            # One of these frames may be to blame: as an error of Ray's the batch would be tried for ever.
            logger.exception("a batch of %d frames failed for a reason that nobody foresaw", len(frames))
            unforeseen = FrameCrashesModel(f"Unforeseen {type(error).__name__}: {error}", frames=len(frames))
            return encode_outcomes(failure_of(unforeseen, len(frames)))

    async def check_health(self) -> None:
        """Ask to be replaced only where that may help: healing failed long, or a thread died."""
        watch = self._core.watch
        if not watch.is_watching or await asyncio.to_thread(lambda: watch.unhealthy_s) > HOPELESS_AFTER_S:
            raise ModelUnavailable("The model cannot be healed here.")

    def __del__(self) -> None:
        """Unload the model; Serve calls this when the calls in flight are done."""
        self._core.close()
