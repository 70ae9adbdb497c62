"""States of a running camera, and that they do not flap."""

from __future__ import annotations

import pytest

from services.domain.camera import Camera, CameraState
from services.ingest.camera_health import OPENED_AFTER_S, WELL_AFTER_S, CameraHealth, Told
from services.ingest.spec import Progress

NEW = Told(CameraState.NEW)
WELL = Progress("press-1", "epoch", captured=1)


def health(source: str = "rtsp://host/x", known: Told = NEW, **options: object) -> CameraHealth:
    return CameraHealth(Camera("press-1", source, **options), known, 0.0)  # type: ignore[arg-type]


def test_a_stream_runs_with_its_first_picture_and_not_before() -> None:
    stream = health()
    for second in range(60):
        assert stream.see(Progress("press-1"), second).state is CameraState.STARTING
    assert stream.see(WELL, 60).state is CameraState.RUNNING


@pytest.mark.parametrize("source", ["/folder", "push:", "s3://bucket/x"])
def test_what_may_be_still_runs_once_it_is_open(source: str) -> None:
    folder = health(source)
    assert folder.see(Progress("press-1"), 0.5).state is CameraState.STARTING
    assert folder.see(Progress("press-1"), 0.5 + OPENED_AFTER_S).state is CameraState.RUNNING


@pytest.mark.parametrize(
    ("progress", "state"),
    [
        (Progress("press-1", captured=1, is_disk_full=True), CameraState.DISK_FULL),
        (Progress("press-1", captured=1, is_shedding=True, oldest_s=60), CameraState.SHEDDING),
        (Progress("press-1", captured=1, picture=CameraState.DARK, oldest_s=60), CameraState.DARK),
        (Progress("press-1", captured=1, picture=CameraState.FROZEN), CameraState.FROZEN),
        (Progress("press-1", captured=1, oldest_s=6), CameraState.SPOOLING),
        (Progress("press-1", captured=1, oldest_s=4), CameraState.RUNNING),
    ],
)
def test_each_trouble_has_its_state_and_a_sentence(progress: Progress, state: CameraState) -> None:
    one = health()
    one.see(WELL, 1)
    told = one.see(progress, 2)
    assert told.state is state
    assert told.message.endswith(".") or state is CameraState.RUNNING


def test_trouble_is_over_only_after_a_while() -> None:
    one = health()
    dark = Progress("press-1", captured=1, picture=CameraState.DARK)
    one.see(WELL, 1)
    seen = [one.see(dark if second % 3 else WELL, second).state for second in range(2, 60)]
    assert set(seen) == {CameraState.DARK}
    assert one.see(WELL, 60).state is CameraState.DARK
    assert one.see(WELL, 60 + WELL_AFTER_S).state is CameraState.RUNNING


def test_a_new_try_is_in_trouble_until_it_has_given_pictures_for_a_while() -> None:
    one = health(known=Told(CameraState.UNREACHABLE, "No answer."))
    assert one.see(Progress("press-1"), 30) == Told(CameraState.UNREACHABLE, "No answer.")
    assert one.see(WELL, 31).state is CameraState.UNREACHABLE
    assert one.see(WELL, 31 + WELL_AFTER_S).state is CameraState.RUNNING


def test_silence_counts_from_the_last_picture() -> None:
    one = health(silent_after_s=10)
    one.see(WELL, 5)
    assert one.see(WELL, 15).state is CameraState.RUNNING
    told = one.see(WELL, 15.1)
    assert (told.state, told.message) == (CameraState.SILENT, "No picture for more than 10 s.")
