"""What is asked before a camera is opened, how it is treated, and how many start their processes at once."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Semaphore, Thread

import pytest

from services.adapters.clock import FakeClock
from services.domain.camera import Area, Camera, OriginalPolicy, ShedPolicy
from services.domain.errors import SourceUnavailable
from services.ingest.camera_runner import _Opening, is_read_by_a_process, require_answer, spec_of
from services.ingest.sources.files import FileSource
from services.ingest.spec import Progress
from tests.poll import poll_until


@pytest.fixture
def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
    return port


@pytest.fixture
def open_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        yield taken.getsockname()[1]


@pytest.mark.parametrize("scheme", ["rtsp", "rtsps", "http", "https"])
def test_a_host_that_takes_no_connection_is_unreachable(scheme: str, closed_port: int) -> None:
    with pytest.raises(SourceUnavailable, match=rf"127\.0\.0\.1:{closed_port} does not answer") as told:
        require_answer(f"{scheme}://127.0.0.1:{closed_port}/main?pwd=hush")
    assert told.value.state == "unreachable"
    assert "hush" not in told.value.message


def test_what_is_there_is_not_refused(open_port: int, tmp_path: Path) -> None:
    for source in (f"rtsp://127.0.0.1:{open_port}/x", str(tmp_path), "synthetic:7", "push:", "s3://bucket/x"):
        require_answer(source)


def test_a_path_that_is_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceUnavailable, match="is not there") as told:
        require_answer(str(tmp_path / "gone"))
    assert told.value.state == "source-gone"


def test_a_camera_is_run_as_configured() -> None:
    camera = Camera(
        "press-1", "rtsp://h/x", fps=2, project="plates", area=Area(0, 0, 0.5, 1),
        keep_original=OriginalPolicy.ALL, shed=ShedPolicy.SAMPLE,
    )  # fmt: skip
    spec = spec_of(camera, FileSource([]))
    assert (spec.camera, spec.fps, spec.project) == ("press-1", 2, "plates")
    assert (spec.shed, spec.keep_original) == (ShedPolicy.SAMPLE, OriginalPolicy.ALL)
    assert spec.edge is not None
    assert spec.health is not None
    plain = spec_of(Camera("syn", "synthetic"), FileSource([]))
    assert (plain.edge, plain.health) == (None, None)


@pytest.mark.parametrize(
    ("source", "expected"),
    [("rtsp://h/x", True), ("usb:/dev/video0", True), ("/a/b.mp4", True), ("/a/b", False), ("push:", False)],
)
def test_films_and_streams_are_read_by_a_process(source: str, expected: bool) -> None:
    assert is_read_by_a_process(source) is expected


def test_few_open_at_once_and_the_others_give_signs_meanwhile() -> None:
    openings, clock, signs = Semaphore(1), FakeClock(), Event()
    with _Opening(openings, clock) as first, _Opening(openings, clock) as second:
        assert first.wait(Event(), lambda: None)
        got: list[bool] = []
        waiting = Thread(target=lambda: got.append(second.wait(Event(), signs.set)))
        waiting.start()
        assert signs.wait(5)
        assert got == []
        first.see(Progress("a"))
        assert got == []
        first.see(Progress("a", captured=1))
        poll_until(lambda: got == [True], deadline_s=5)
        waiting.join(5)
    assert openings.acquire(blocking=False)


def test_a_turn_ends_by_time_and_a_wait_by_a_stop() -> None:
    openings, clock, stop = Semaphore(1), FakeClock(), Event()
    with _Opening(openings, clock) as silent, _Opening(openings, clock) as second:
        assert silent.wait(stop, lambda: None)
        stop.set()
        assert not second.wait(stop, lambda: None)
        clock.advance(60)
        silent.see(Progress("a"))
        assert second.wait(Event(), lambda: None)
    assert openings.acquire(blocking=False)
    assert not openings.acquire(blocking=False)
