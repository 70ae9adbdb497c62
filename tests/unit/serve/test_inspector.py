"""The core: a batch in, an outcome per frame out; and what its deployment answers."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest
from PIL import Image

from serve.inspector import Inspector, InspectorCore
from serve.model_watch import ModelWatch, WantedVersion
from serve.units import raise_failure
from serve.versions import VersionCache
from services.adapters.clock import FakeClock
from services.adapters.triton.memory import MemoryTriton
from services.domain.errors import FrameCrashesModel, ModelUnavailable
from services.domain.frame import Frame
from services.domain.inspection import Inspection
from services.vision.decode import decode
from services.vision.runtime import OnnxModel
from services.wire.batch import Outcome, Rejection, decode_masks, decode_outcomes, encode_frames
from services.wire.frame import decode_frame
from tests.unit.serve.fakes import frame_record
from tests.unit.serve.models import picture

USER_CONFIG = {"project": "plates", "version": "v1", "uri": "s3://loupe-models/plates/v1"}


def frame(index: int, image: bytes) -> Frame:
    return decode_frame(frame_record(index, image))


@pytest.fixture
def core(watch: ModelWatch, clock: FakeClock) -> InspectorCore:
    watch.follow(WantedVersion(**USER_CONFIG))
    return InspectorCore(watch, clock, threads=2, unit="unit-1")


def test_outcomes_stand_in_the_order_of_the_frames(core: InspectorCore) -> None:
    images = [picture(0), b"not an image", picture(255), b"", picture(51)]
    outcomes = core.inspect([frame(index, image) for index, image in enumerate(images)])
    scores = [one.score if isinstance(one, Inspection) else one.cause for one in outcomes]
    assert scores == pytest.approx([0.0, "UnreadableImage", 10.0, "UnreadableImage", 2.0])


def test_an_inspection_carries_what_the_frame_said(core: InspectorCore) -> None:
    told = replace(frame(3, picture(255)), part_id="p1", lot_id="l1", subject="a.png", sequence=3, epoch="e")
    (found,) = core.inspect([told])
    assert isinstance(found, Inspection)
    assert (found.frame_id, found.camera, found.position) == (told.frame_id, told.camera, told.position)
    assert (found.part_id, found.lot_id, found.subject) == ("p1", "l1", "a.png")
    assert (found.sequence, found.epoch) == (3, "e")
    assert (found.project, found.model_version, found.unit) == ("plates", "v1", "unit-1")
    assert (found.is_anomalous, found.threshold) == (True, 5.0)
    assert (found.width_px, found.height_px) == (40, 40)
    assert found.regions
    assert set(found.stage_ms) == {"decode", "infer", "score"}


def test_masks_have_the_size_of_each_picture_and_nothing_where_there_is_no_verdict(
    core: InspectorCore,
) -> None:
    images = [picture(255, side_px=90), b"not an image", picture(0, side_px=33)]
    frames = [frame(index, image) for index, image in enumerate(images)]
    outcomes, masks = core.inspect_with_masks(frames)
    assert [isinstance(one, Rejection) for one in outcomes] == [False, True, False]
    assert masks[1] == b""
    anomalous, normal = (np.array(Image.open(io.BytesIO(masks[at]))) for at in (0, 2))
    assert anomalous.shape == (90, 90, 3)
    assert (anomalous == (255, 127, 14)).all()  # bright everywhere, and that is what this model looks for
    assert normal.shape == (33, 33, 3)
    assert (normal == 255).all()


def test_the_same_numbers_as_without_a_stack(core: InspectorCore, cache: VersionCache) -> None:
    image = picture(77, side_px=300)
    (found,) = core.inspect([frame(0, image)])
    assert isinstance(found, Inspection)
    alone = OnnxModel(cache.fetch(USER_CONFIG["uri"]).path)
    (expected,) = alone.infer(decode(image, (16, 16)).pixels[None])
    assert found.score == pytest.approx(expected.score, abs=1e-4)


def test_a_batch_of_nothing_readable_asks_no_model(core: InspectorCore, server: MemoryTriton) -> None:
    server.is_up = False
    assert all(isinstance(one, Rejection) for one in core.inspect([frame(0, b"x"), frame(1, b"")]))


def test_a_model_that_dies_fails_the_call_and_is_looked_after(
    core: InspectorCore, server: MemoryTriton
) -> None:
    (name,) = server.loaded()
    server.crash(name)
    with pytest.raises(FrameCrashesModel):
        core.inspect([frame(0, picture(1))])
    with pytest.raises(ModelUnavailable):
        core.inspect([frame(0, picture(1))])
    core.watch.tend()
    assert isinstance(core.inspect([frame(0, picture(1))])[0], Inspection)


def test_the_deployment_answers_over_the_wire(
    watch: ModelWatch, clock: FakeClock, server: MemoryTriton
) -> None:
    deployment = Inspector(lambda project: InspectorCore(watch, clock, threads=1, unit=project), "plates")

    async def call() -> bytes:
        await deployment.reconfigure(USER_CONFIG)
        masked = await deployment.inspect(encode_frames([frame(0, picture(255))], masks=True))
        assert decode_masks(masked)[0].startswith(b"\x89PNG")
        await deployment.check_health()
        return await deployment.inspect(encode_frames([frame(0, picture(255)), frame(1, b"bad")]))

    good, bad = decode_outcomes(asyncio.run(call()))
    assert isinstance(good, Inspection)
    assert isinstance(bad, Rejection)
    server.is_up = False
    answer = asyncio.run(deployment.inspect(encode_frames([frame(0, picture(255))])))
    with pytest.raises((ModelUnavailable, FrameCrashesModel)):
        raise_failure(decode_outcomes(answer))
    server.is_up = True
    watch.close()


def test_a_batch_that_fails_unforeseen_is_told_so_and_not_tried_for_ever(
    watch: ModelWatch, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(InspectorCore):
        def inspect(self, frames: Sequence[Frame]) -> tuple[Outcome, ...]:
            raise ZeroDivisionError(f"in one of {len(frames)}")

    deployment = Inspector(lambda project: Broken(watch, clock, threads=1, unit=project), "plates")
    answer = asyncio.run(deployment.inspect(encode_frames([frame(0, picture(255)), frame(1, b"")])))
    with pytest.raises(FrameCrashesModel, match="ZeroDivisionError: in one of 2"):
        raise_failure(decode_outcomes(answer))
    assert "nobody foresaw" in caplog.text
    watch.close()


def test_asks_to_be_replaced_when_it_cannot_heal(
    watch: ModelWatch, clock: FakeClock, server: MemoryTriton, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment = Inspector(lambda project: InspectorCore(watch, clock, threads=1, unit=project), "plates")
    monkeypatch.setattr(ModelWatch, "unhealthy_s", timedelta(minutes=2).total_seconds())
    with pytest.raises(ModelUnavailable):
        asyncio.run(deployment.check_health())
    watch.close()
