"""The HTTP door: who may push, what is refused with which status, and that 202 means safe."""

from __future__ import annotations

import contextlib
import hashlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from threading import Event
from uuid import UUID, uuid5

import httpx
import pytest

from services.adapters.metrics import Metrics
from services.domain.camera import Camera
from services.domain.errors import BadSettings
from services.domain.ledger import ShedReason
from services.ingest import door as door_module
from services.ingest.camera_rows import StoredCamera
from services.ingest.door import Door, DoorServer, Rooms
from services.ingest.sources.protocol import Settled, Shot
from services.ingest.sources.push import MAX_WAITING_SHOTS, PushSource
from tests.poll import poll_until

TOKEN = "let-me-in"
IDS = UUID(int=7)


def pushed(name: str = "press-1", **options: object) -> StoredCamera:
    camera = Camera(name, "push:", **options)  # type: ignore[arg-type]
    return StoredCamera(camera, None, hashlib.sha256(TOKEN.encode()).hexdigest())


@dataclass
class Line:
    """A door with one push camera whose thread settles what it takes, unless told not to."""

    stored: dict[str, StoredCamera] = field(default_factory=lambda: {"press-1": pushed()})
    is_healthy: bool = True
    taken: list[Shot] = field(default_factory=list)
    settle: Callable[[Shot], None] = lambda _: None
    stop: Event = field(default_factory=Event)
    may_take: Event = field(default_factory=Event)

    def __post_init__(self) -> None:
        self.source = PushSource("press-1")
        self.settle = self.accept
        self.may_take.set()
        self.is_running = True
        rooms = Rooms(
            camera=self.stored.get,
            source=lambda name: self.source if name == "press-1" and self.is_running else None,
            page=lambda: "press-1 running\n",
            is_healthy=lambda: self.is_healthy,
        )
        self.server = DoorServer(Door(rooms, Metrics()), "127.0.0.1", 0)
        self.client = httpx.Client(
            base_url=f"http://127.0.0.1:{self.server.port}", timeout=30, trust_env=False
        )
        self.thread = threading.Thread(target=self.film, daemon=True)
        self.thread.start()

    def accept(self, shot: Shot) -> None:
        shot.on_settled(Settled(uuid5(IDS, str(len(self.taken)))))

    def film(self) -> None:
        for shot in self.source.shots(self.stop):
            if shot:
                self.may_take.wait(30)
                self.taken.append(shot)
                self.settle(shot)

    def push(self, token: str | None = TOKEN, camera: str = "press-1", **request: object) -> httpx.Response:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        given = request.pop("headers", {})
        assert isinstance(given, dict)
        return self.client.post(f"/v1/cameras/{camera}/frames", headers=headers | given, **request)  # type: ignore[arg-type]

    def close(self) -> None:
        self.stop.set()
        self.may_take.set()
        self.client.close()
        self.server.shutdown()
        self.thread.join(5)


@pytest.fixture
def line() -> Iterator[Line]:
    made = Line()
    try:
        yield made
    finally:
        made.close()


def test_one_image_is_the_body_and_202_names_its_frame(line: Line) -> None:
    answer = line.push(
        content=b"pixels",
        headers={
            "Content-Type": "image/png", "X-Loupe-Part-Id": "part 7", "ce-lotid": "lot%207", "ce-id": "42",
            "ce-source": "/plc", "ce-time": "2026-11-21T10:00:00Z", "traceparent": "00-ab-cd-01",
        },
    )  # fmt: skip
    assert answer.status_code == 202
    assert answer.json() == {"frames": [{"frame_id": str(uuid5(IDS, "1"))}]}
    (shot,) = line.taken
    assert (shot.image, shot.content_type, shot.part_id, shot.lot_id) == (
        b"pixels", "image/png", "part 7", "lot 7",
    )  # fmt: skip
    assert shot.captured_at is not None
    assert shot.captured_at.isoformat() == "2026-11-21T10:00:00+00:00"
    assert (shot.receipt, shot.traceparent) == ("push\x1f/plc\x1f42", "00-ab-cd-01")


@pytest.mark.parametrize("kind", ["", "application/x-www-form-urlencoded", "application/octet-stream"])
def test_a_client_need_not_say_what_it_sends(line: Line, kind: str) -> None:
    headers = {"Content-Type": kind} if kind else {}
    assert line.push(content=b"pixels", headers=headers).status_code == 202
    assert line.taken[0].content_type == "application/octet-stream"
    assert line.taken[0].receipt is None


def test_a_form_gives_several_in_order(line: Line) -> None:
    files = [("image", (f"{n}.jpg", f"pixels {n}".encode(), "image/jpeg")) for n in range(30)]
    answer = line.push(files=files, data={"part_id": "p7"}, headers={"ce-id": "42"})
    assert answer.status_code == 202
    assert [one.image for one in line.taken] == [f"pixels {n}".encode() for n in range(30)]
    assert {one.part_id for one in line.taken} == {"p7"}
    assert [one.receipt for one in line.taken] == [f"push\x1f\x1f42\x1f{n}" for n in range(30)]
    assert len(answer.json()["frames"]) == 30
    assert line.taken[3].subject == "3.jpg"


def test_a_frame_that_was_let_go_says_why(line: Line) -> None:
    line.settle = lambda shot: shot.on_settled(Settled(IDS, ShedReason.DROPPED_NEWEST))
    assert line.push(content=b"pixels").json() == {
        "frames": [{"frame_id": str(IDS), "shed": "dropped-newest"}]
    }


@pytest.mark.parametrize(
    ("token", "camera", "status"),
    [(None, "press-1", 401), ("wrong", "press-1", 403), (TOKEN, "none", 404), (TOKEN, "folder", 409)],
)
def test_who_may_not_push_hears_why_and_nothing_is_taken(
    line: Line, token: str | None, camera: str, status: int
) -> None:
    folder = pushed("folder")
    line.stored["folder"] = replace(folder, camera=Camera("folder", "/photos"))
    answer = line.push(token, camera, content=b"pixels")
    assert answer.status_code == status
    assert answer.json()["error"].endswith(".")
    assert TOKEN not in answer.text
    assert line.taken == []


def test_a_camera_without_a_token_takes_nothing(line: Line) -> None:
    line.stored["press-1"] = replace(pushed(), push_token_sha256=None)
    assert line.push("", content=b"pixels").status_code == 401
    assert line.push("x", content=b"pixels").status_code == 403


def test_a_paused_camera_is_409_and_one_that_runs_elsewhere_503(line: Line) -> None:
    line.stored["press-1"] = pushed(is_paused=True)
    assert line.push(content=b"pixels").status_code == 409
    line.stored["press-1"] = pushed()
    line.is_running = False
    answer = line.push(content=b"pixels")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        ({"content": b""}, 400),
        ({"content": b"{}", "headers": {"Content-Type": "application/json"}}, 415),
        ({"content": b"x", "headers": {"Content-Type": "multipart/form-data"}}, 400),
        ({"content": b"garbage", "headers": {"Content-Type": "multipart/form-data; boundary=b"}}, 400),
        ({"files": [("image", ("a.txt", b"text", "text/plain"))]}, 400),
        ({"files": [("image", ("a.jpg", b"", "image/jpeg"))]}, 400),
        ({"files": [("x", (None, b"a field"))]}, 400),
    ],
)
def test_nonsense_is_a_sentence(line: Line, request_: dict[str, object], status: int) -> None:
    answer = line.push(**request_)  # type: ignore[arg-type]
    assert answer.status_code == status, answer.text
    assert answer.json()["error"].endswith(".")
    assert line.taken == []


def test_what_is_too_large_is_refused_before_it_is_read(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door_module, "CLAIM_LIMIT_BYTES", 1000)
    assert line.push(content=b"x" * 1001).status_code == 413

    def endless() -> Iterator[bytes]:
        for _ in range(1_000_000):
            yield b"x" * 100

    # No length is told, so that the limit counts while it is read; the server hangs up on the rest.
    with contextlib.suppress(httpx.TransportError):
        assert line.push(content=endless()).status_code == 413
    assert line.push(content=b"x" * 1000).status_code == 202
    assert len(line.taken) == 1


def test_all_requests_together_are_bounded(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door_module, "MAX_READING_BYTES", 1000)
    assert line.push(content=b"x" * 1001).status_code == 429
    assert line.push(content=b"x" * 900).status_code == 202
    assert line.push(content=b"x" * 900).status_code == 202


def test_back_pressure_is_429_and_what_was_refused_is_not_captured(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(door_module, "SAFE_WITHIN_S", 0.3)
    monkeypatch.setattr(door_module, "ROOM_WITHIN_S", 0.1)
    line.may_take.clear()
    line.settle = lambda _: None
    first = line.push(content=b"in hand")
    # The camera has it already, so nobody can say that it is not captured.
    assert first.status_code == 503
    assert "ce-id" in first.json()["error"]
    second = line.push(content=b"waiting")
    assert (second.status_code, second.headers["retry-after"]) == (429, "1")
    line.settle = line.accept
    line.may_take.set()
    assert line.push(content=b"later").status_code == 202
    assert [one.image for one in line.taken] == [b"in hand", b"later"]


def test_the_hand_over_is_bounded(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door_module, "ROOM_WITHIN_S", 0.1)
    line.may_take.clear()
    files = [("image", (f"{n}.jpg", b"pixels", "image/jpeg")) for n in range(MAX_WAITING_SHOTS + 5)]
    answer = line.push(files=files)
    assert answer.status_code == 429
    line.may_take.set()
    poll_until(lambda: line.taken, deadline_s=5)
    assert line.push(content=b"later").status_code == 202
    assert [one.image for one in line.taken] == [b"pixels", b"later"]


def test_a_camera_that_stops_answers_its_clients(line: Line) -> None:
    line.may_take.clear()
    answers: list[httpx.Response] = []
    threads = [
        threading.Thread(target=lambda n=n: answers.append(line.push(content=f"{n}".encode())))
        for n in range(3)
    ]
    for thread in threads:
        thread.start()
    poll_until(lambda: len(line.source._waiting) == 2, deadline_s=10)
    line.stop.set()
    line.may_take.set()
    for thread in threads:
        thread.join(20)
    assert sorted(answer.status_code for answer in answers) == [202, 503, 503]


def test_a_client_that_goes_away_harms_nothing(line: Line) -> None:
    with socket.create_connection(("127.0.0.1", line.server.port), timeout=10) as one:
        one.sendall(
            b"POST /v1/cameras/press-1/frames HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n"
            + f"Authorization: Bearer {TOKEN}\r\n\r\nhalf a picture".encode()
        )
    for _ in range(3):
        assert line.push(content=b"whole").status_code == 202
    assert [one.image for one in line.taken] == [b"whole"] * 3


def test_the_pages(line: Line) -> None:
    get = line.client.get
    assert (get("/healthz").status_code, get("/metrics").status_code) == (200, 200)
    line.is_healthy = False
    assert get("/healthz").status_code == 503
    assert "press-1 running" in get("/").text
    assert get("/v1/cameras/press-1/frames").status_code == 405
    assert "loupe.frames" in json.dumps(get("/asyncapi.json").json())
    assert get("/asyncapi.yaml").text.startswith("asyncapi:")


def test_a_taken_port_is_a_sentence(line: Line) -> None:
    rooms = Rooms(lambda _: None, lambda _: None, lambda: "", lambda: True)
    with pytest.raises(BadSettings, match="can listen"):
        DoorServer(Door(rooms, Metrics()), "127.0.0.1", line.server.port)
