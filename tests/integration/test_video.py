"""Films, a fake RTSP camera and a fake HTTP camera, each read by a real child process."""

from __future__ import annotations

import base64
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from pathlib import Path
from threading import Event

import psutil
import pytest

from services.domain.camera import CameraState
from services.domain.errors import SourceUnavailable
from services.ingest.sources.protocol import Shot, Skipped, Taken, Unreadable
from services.ingest.sources.video import VideoSource
from tests.films import Film, jpegs, number_of, write_film, write_sound
from tests.poll import poll_until
from tests.rtsp import Fault, RtspCamera

CODECS = {
    "h264.mp4": Film("libx264"),
    "h264.mkv": Film("libx264"),
    "h264.ts": Film("libx264"),
    "h265.mp4": Film("libx265", options={"x265-params": "log-level=none"}),
    "mpeg4.avi": Film("mpeg4"),
    "mjpeg.avi": Film("mjpeg", pix_fmt="yuvj420p"),
    "raw.mjpeg": Film("mjpeg", pix_fmt="yuvj420p"),
    "png.mov": Film("png", pix_fmt="rgb24"),
    "vp9.webm": Film("libvpx-vp9", options={"deadline": "realtime", "cpu-used": "8"}),
}
SECRET = "line 3:p@ss:w/rd%20"
PASSWORD_FORMS = ("p@ss", "p%40ss", base64.b64encode(SECRET.encode()).decode())


def taken(source: VideoSource, count: int | None = None) -> list[Taken]:
    """What a source gives until it ends, or until there are so many shots."""
    found: list[Taken] = []
    shots = 0
    with closing(source.shots(Event())) as items:
        for item in items:
            if item is not None:
                found.append(item)
            shots += isinstance(item, Shot)
            if shots == count:
                break
    return found


def shots_of(items: list[Taken]) -> list[Shot]:
    return [item for item in items if isinstance(item, Shot)]


def numbers_of(items: list[Taken]) -> list[int]:
    return [number_of(shot.image) for shot in shots_of(items)]


def sequences(items: list[Taken]) -> int:
    """How many sequences they take."""
    return sum(item.count if isinstance(item, Skipped) else 1 for item in items)


def refusal(source: VideoSource, count: int | None = None) -> SourceUnavailable:
    with pytest.raises(SourceUnavailable) as caught:
        taken(source, count)
    return caught.value


def children() -> list[psutil.Process]:
    """This process's decoders."""
    found = []
    for child in psutil.Process().children():
        try:
            if "services.ingest.video_child" in child.cmdline():
                found.append(child)
        except psutil.NoSuchProcess:
            continue
    return found


# Films


@pytest.mark.parametrize("name", CODECS)
def test_every_picture_of_a_film_is_taken_in_order(name: str, tmp_path: Path) -> None:
    items = taken(VideoSource(str(write_film(tmp_path / name, CODECS[name]))))
    assert numbers_of(items) == list(range(30))
    assert sequences(items) == 30
    first = shots_of(items)[0]
    assert (first.subject, first.content_type, first.captured_at) == (f"{name}:0", "image/jpeg", None)
    assert children() == []


def test_jpegs_of_an_mjpeg_film_are_the_same_bytes(tmp_path: Path) -> None:
    pictures = jpegs(10)
    film = tmp_path / "film.mjpeg"
    film.write_bytes(b"".join(pictures))
    assert [shot.image for shot in shots_of(taken(VideoSource(str(film))))] == pictures


def test_a_film_begins_again_when_it_loops(tmp_path: Path) -> None:
    film = write_film(tmp_path / "film.mp4", Film(frames=5))
    items = taken(VideoSource(str(film), loop=True), count=12)
    assert numbers_of(items) == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1]
    assert [shot.subject for shot in shots_of(items)][4:6] == ["film.mp4:4", "film.mp4:0"]
    assert sequences(items) == 12


def test_pictures_passed_over_are_declared(tmp_path: Path) -> None:
    # 30 pictures at 10 a second are 3 s; 2 a second of them are numbers 0, 5, 10, 15, 20, 25.
    items = taken(VideoSource(str(write_film(tmp_path / "film.mp4")), fps=2))
    assert numbers_of(items) == [0, 5, 10, 15, 20, 25]
    # Four between two pictures, and four after the last.
    assert [item.count for item in items if isinstance(item, Skipped)] == [4] * 6
    assert sequences(items) == 30


def test_a_damaged_part_of_a_film_is_declared_and_the_rest_goes_on(tmp_path: Path) -> None:
    film = write_film(tmp_path / "film.mov", CODECS["png.mov"])
    data = bytearray(film.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 600] = bytes(index * 37 % 256 for index in range(600))
    film.write_bytes(data)
    items = taken(VideoSource(str(film)))
    damaged = [item for item in items if isinstance(item, Unreadable)]
    # PNG pictures stand alone: the damage is in one, or in two that touch it.
    assert 1 <= len(damaged) <= 2
    assert len(shots_of(items)) == 30 - len(damaged)
    assert numbers_of(items)[-1] == 29
    assert sequences(items) == 30


def test_a_film_cut_short_gives_what_is_there_and_ends(tmp_path: Path) -> None:
    film = write_film(tmp_path / "film.avi", CODECS["mjpeg.avi"])
    film.write_bytes(film.read_bytes()[: film.stat().st_size // 2])
    numbers = numbers_of(taken(VideoSource(str(film))))
    assert numbers == list(range(len(numbers)))
    assert 10 <= len(numbers) <= 15


def not_there(path: Path) -> None:
    """Leave it missing."""


def folder(path: Path) -> None:
    path.mkdir()


def empty(path: Path) -> None:
    path.touch()


def text(path: Path) -> None:
    path.write_text("This is a shopping list: apples, pears.\n" * 50)


def playlist(path: Path) -> None:
    # A film is data: it may not make FFmpeg open other files or addresses.
    path.write_text("#EXTM3U\n#EXTINF:10,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n")


def half(path: Path) -> None:
    write_film(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    ("make", "state", "sentence"),
    [
        (not_there, CameraState.SOURCE_GONE, "is not there"),
        (folder, CameraState.SOURCE_GONE, "is a folder"),
        (empty, CameraState.UNKNOWN_CODEC, "is no film"),
        (text, CameraState.UNKNOWN_CODEC, "is no film"),
        (playlist, CameraState.UNKNOWN_CODEC, "is no film"),
        (half, CameraState.UNKNOWN_CODEC, "is damaged"),
        (write_sound, CameraState.UNKNOWN_CODEC, "only sound"),
    ],
)
def test_what_is_no_film_has_a_named_state(
    make: Callable[[Path], object], state: CameraState, sentence: str, tmp_path: Path
) -> None:
    path = tmp_path / "film.mp4"
    make(path)
    error = refusal(VideoSource(str(path)))
    assert error.state == state
    assert sentence in error.message
    assert children() == []


def test_a_missing_usb_camera_is_gone() -> None:
    error = refusal(VideoSource("usb:/dev/video987"))
    assert (error.state, error.message) == (CameraState.SOURCE_GONE, "usb:/dev/video987 is not there.")


# RTSP


def test_a_camera_plays_and_its_pictures_are_from_now() -> None:
    with RtspCamera(Film(frames=60, fps=30, size_px=(640, 480))) as camera:
        begun = datetime.now(UTC)
        items = taken(VideoSource(camera.address), count=20)
    for shot in shots_of(items):
        assert shot.captured_at is not None
        assert timedelta(0) <= shot.captured_at - begun < timedelta(seconds=60)
        assert shot.subject.startswith("rtsp:")
    # The subject counts the pictures of the connection, so it agrees with what the camera numbered.
    assert [int(shot.subject.partition(":")[2]) % 60 for shot in shots_of(items)] == numbers_of(items)


def test_a_slow_reader_gets_new_pictures_and_a_declaration_of_the_rest() -> None:
    with RtspCamera() as camera, closing(VideoSource(camera.address).shots(Event())) as items:
        found = list(islice((item for item in items if item is not None), 5))
        sent = camera.sent
        poll_until(lambda: camera.sent > sent + 45, deadline_s=20, what="45 more pictures")
        found += list(islice((item for item in items if item is not None), 6))
        newest = found[-1]
        assert isinstance(newest, Shot)
        behind = camera.sent - int(newest.subject.partition(":")[2])
    assert any(isinstance(item, Skipped) and item.count > 30 for item in found[5:])
    # A second of pictures is 30; a queue of old ones would be 45 behind.
    assert behind < 30


def test_a_camera_gives_no_more_than_the_rate_asked() -> None:
    with RtspCamera() as camera:
        items = taken(VideoSource(camera.address, fps=5), count=8)
    times = [shot.captured_at for shot in shots_of(items) if shot.captured_at is not None]
    # Seven intervals of 0.2 s, each taken at its first picture: at most one picture (33 ms) and jitter less.
    assert times[-1] - times[0] >= timedelta(seconds=7 * 0.2 - 0.2)
    assert any(isinstance(item, Skipped) for item in items)


@pytest.mark.parametrize("is_digest", [False, True], ids=["basic", "digest"])
def test_the_password_opens_the_camera_and_shows_nowhere(
    is_digest: bool,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caplog.set_level(0)
    # Where `--secret env:LINE_3` has it.
    monkeypatch.setenv("LINE_3", SECRET)
    with RtspCamera(secret=SECRET, is_digest=is_digest) as camera:
        source = VideoSource(camera.address, secret=SECRET)
        with closing(source.shots(Event())) as items:
            assert any(isinstance(item, Shot) for item in items)
            seen = [" ".join(child.cmdline()) + str(child.environ()) for child in children()]
            assert len(seen) == 1
        wrong = VideoSource(camera.address, secret=SECRET.replace("line 3", "line 4"))
        error = refusal(wrong)
        nobody = refusal(VideoSource(camera.address))
    assert error.state == nobody.state == CameraState.UNAUTHORIZED
    seen += [error.message, repr(error), repr(source), repr(wrong), caplog.text, *capfd.readouterr()]
    assert not [form for form in PASSWORD_FORMS if form in "\n".join(seen)]


def test_a_path_that_the_camera_does_not_know_is_gone() -> None:
    with RtspCamera() as camera:
        camera.fault = Fault.NOT_FOUND
        assert refusal(VideoSource(camera.address)).state == CameraState.SOURCE_GONE


def test_a_camera_that_goes_is_unreachable_and_plays_when_it_is_back() -> None:
    camera = RtspCamera()
    with camera, closing(VideoSource(camera.address).shots(Event())) as items:
        assert any(isinstance(item, Shot) for item in items)
        camera.stop()
        with pytest.raises(SourceUnavailable) as caught:
            list(items)
    assert caught.value.state == CameraState.UNREACHABLE
    refused = refusal(VideoSource(camera.address))
    assert (refused.state, refused.message) == (
        CameraState.UNREACHABLE, f"{camera.address} refuses the connection.",
    )  # fmt: skip
    with camera:
        assert len(shots_of(taken(VideoSource(camera.address), count=3))) == 3


@pytest.mark.parametrize(
    ("fault", "state"),
    [
        (Fault.DROP, CameraState.UNREACHABLE),
        (Fault.STALL, CameraState.UNREACHABLE),
        (Fault.GARBAGE, CameraState.UNKNOWN_CODEC),
    ],
)
def test_faults_in_mid_stream_have_a_state(fault: Fault, state: CameraState) -> None:
    with RtspCamera() as camera, closing(VideoSource(camera.address).shots(Event())) as items:
        assert any(isinstance(item, Shot) for item in items)
        camera.fault = fault
        with pytest.raises(SourceUnavailable) as caught:
            list(items)
    assert caught.value.state == state


def test_an_unknown_host_is_unreachable() -> None:
    error = refusal(VideoSource("rtsp://camera.invalid/line", secret=SECRET))
    assert error.state == CameraState.UNREACHABLE
    assert error.message.startswith("rtsp://camera.invalid/line cannot be reached")


# HTTP


class _MjpegCamera(BaseHTTPRequestHandler):
    """Sends twenty JPEGs in parts of one answer, as network cameras do, to those who know the password."""

    pictures = jpegs(20)

    def do_GET(self) -> None:
        expected = "Basic " + base64.b64encode(SECRET.encode()).decode()
        if self.path != "/stream":
            self.send_error(404)
        elif self.headers["Authorization"] != expected:
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="camera"')
            self.end_headers()
        else:
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
            self.end_headers()
            for picture in self.pictures:
                head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(picture)}\r\n\r\n"
                self.wfile.write(head.encode() + picture + b"\r\n")

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def http_camera() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _MjpegCamera)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_jpegs_of_an_http_camera_are_the_same_bytes_and_its_end_is_told(http_camera: str) -> None:
    found: list[Taken | None] = []
    with pytest.raises(SourceUnavailable, match="its stream") as caught:
        found.extend(iter_into(found, VideoSource(f"{http_camera}/stream", secret=SECRET)))
    assert caught.value.state == CameraState.UNREACHABLE
    items = [item for item in found if item is not None]
    assert sequences(items) == 20
    assert {shot.image for shot in shots_of(items)} <= set(_MjpegCamera.pictures)
    assert shots_of(items)[-1].image == _MjpegCamera.pictures[-1]


def iter_into(found: list[Taken | None], source: VideoSource) -> Iterator[Taken | None]:
    """Note what a source gives until it raises."""
    for item in source.shots(Event()):
        found.append(item)
        yield from ()


@pytest.mark.parametrize(
    ("path", "secret", "state"),
    [
        ("/stream", None, CameraState.UNAUTHORIZED),
        ("/stream", "line 3:wrong", CameraState.UNAUTHORIZED),
        ("/other", SECRET, CameraState.SOURCE_GONE),
    ],
)
def test_http_refusals_have_a_state(
    http_camera: str, path: str, secret: str | None, state: CameraState
) -> None:
    assert refusal(VideoSource(http_camera + path, secret=secret)).state == state


# Processes


@contextmanager
def running(source: VideoSource) -> Iterator[tuple[Iterator[Taken | None], psutil.Process]]:
    """A source that has given its first picture, and its child."""
    before = {child.pid for child in children()}
    with closing(source.shots(Event())) as items:
        assert any(isinstance(item, Shot) for item in items)
        (child,) = [child for child in children() if child.pid not in before]
        yield items, child


def test_a_stopped_child_is_ended_and_the_other_camera_goes_on() -> None:
    others: list[Taken] = []
    with RtspCamera() as camera:
        other = threading.Thread(target=lambda: others.extend(taken(VideoSource(camera.address), count=60)))
        with running(VideoSource(camera.address, hang_s=2.0)) as (items, child):
            child.send_signal(signal.SIGSTOP)
            other.start()
            with pytest.raises(SourceUnavailable, match="gave no sign of life for 2 s") as caught:
                list(items)
            assert caught.value.state == CameraState.HANGING
            assert not psutil.pid_exists(child.pid)
        other.join(30)
    assert len(shots_of(others)) == 60


def test_a_killed_child_is_a_named_fault() -> None:
    with RtspCamera() as camera, running(VideoSource(camera.address)) as (items, child):
        child.kill()
        with pytest.raises(SourceUnavailable, match="was ended by SIGKILL") as caught:
            list(items)
    assert caught.value.state == CameraState.FAILED


def test_a_stop_ends_the_source_and_its_child() -> None:
    stop = Event()
    with RtspCamera() as camera:
        items = VideoSource(camera.address).shots(stop)
        assert any(isinstance(item, Shot) for item in items)
        stop.set()
        list(items)
    assert children() == []


_PARENT = """
import sys
from threading import Event
from services.ingest.sources.video import VideoSource
for item in VideoSource(sys.argv[1], loop=True).shots(Event()):
    if item is not None:
        print("picture", flush=True)
"""


@pytest.mark.parametrize("is_child_stopped", [False, True], ids=["running", "stopped"])
def test_a_killed_ingester_leaves_no_decoder_behind(is_child_stopped: bool, tmp_path: Path) -> None:
    film = write_film(tmp_path / "film.mp4")
    with subprocess.Popen(
        [sys.executable, "-c", _PARENT, str(film)], stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"picture\n"
        (child,) = psutil.Process(parent.pid).children()
        if is_child_stopped:
            child.send_signal(signal.SIGSTOP)
        os.kill(parent.pid, signal.SIGKILL)
        poll_until(lambda: is_gone(child), deadline_s=10, what="the decoder to end")


def is_gone(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_a_machine_without_room_for_a_process_is_a_named_fault() -> None:
    # Two descriptors are too few for the pipes of a child.
    before, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest_free = os.dup(0)
    os.close(lowest_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free + 2, hard))
    try:
        error = refusal(VideoSource("rtsp://127.0.0.1:1/line"))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (before, hard))
    assert error.state == CameraState.FAILED
    assert "could not be started: Too many open files" in error.message
