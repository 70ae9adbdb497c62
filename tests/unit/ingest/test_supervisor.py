"""Cameras as the database wants them, each in a thread of its own: states, places, retries, leases."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from threading import Event

import pytest
from sqlalchemy import Engine, update

from services.adapters.clock import FakeClock
from services.adapters.database import migrate, open_engine, writing
from services.adapters.database.tables import camera_states
from services.adapters.metrics import Metrics
from services.domain.camera import Camera, CameraState
from services.domain.errors import BadRequest, SourceUnavailable
from services.ingest.camera_events import is_told
from services.ingest.camera_rows import NEVER, ListedCamera, StoredCamera
from services.ingest.camera_store import CameraStore
from services.ingest.spec import Progress
from services.ingest.supervisor import HANGING_AFTER_S, OTHERS_FIRST_S, STOP_WITHIN_S, Scope, Supervisor
from services.wire.camera_event import CameraChange
from tests.poll import poll_until

Behaviour = Callable[[StoredCamera, Event, Callable[[Progress], None]], Progress]


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    url = f"sqlite:///{tmp_path / 'loupe.db'}"
    migrate(url)
    opened = open_engine(url)
    yield opened
    opened.dispose()


def films(_: StoredCamera, stop: Event, on_progress: Callable[[Progress], None]) -> Progress:
    """Capture a frame and stay."""
    now = Progress("", "epoch", captured=1)
    on_progress(now)
    stop.wait(30)
    return now


def fails(error: Exception) -> Behaviour:
    def run(*_: object) -> Progress:
        raise error

    return run


@dataclass
class Line:
    """A supervisor whose cameras do what `behaviours` say, and whose clock a test turns."""

    store: CameraStore
    ingester: str = "a"
    max_cameras: int = 50
    patterns: tuple[str, ...] = ("*",)
    behaviours: dict[str, Behaviour] = field(default_factory=dict)
    runs: list[str] = field(default_factory=list)
    alive: set[str] = field(default_factory=set)
    doubles: list[str] = field(default_factory=list)
    told: list[CameraChange] = field(default_factory=list)
    clock: FakeClock = field(default_factory=FakeClock)
    metrics: Metrics = field(default_factory=Metrics)

    def __post_init__(self) -> None:
        scope = Scope(self.ingester, self.max_cameras, self.patterns)
        self.supervisor = Supervisor(self.store, scope, self.run, self.tell, self.clock, self.metrics)

    def tell(self, change: CameraChange) -> None:
        if is_told(change):
            self.told.append(change)

    def run(self, stored: StoredCamera, stop: Event, on_progress: Callable[[Progress], None]) -> Progress:
        name = stored.camera.camera
        if name in self.alive:
            self.doubles.append(name)
        self.alive.add(name)
        self.runs.append(name)
        try:
            return self.behaviours.get(name, films)(stored, stop, on_progress)
        finally:
            self.alive.discard(name)

    def add(self, *names: str, **options: object) -> None:
        self.store.add([StoredCamera(Camera(n, "synthetic", **options)) for n in names], "ann")  # type: ignore[arg-type]

    def look(self, seconds: float = 1.0) -> None:
        self.clock.advance(seconds)
        self.supervisor.look()

    def look_until(self, check: Callable[[], object], seconds: float = 1.0) -> None:
        def is_true() -> bool:
            self.look(seconds)
            return bool(check())

        poll_until(is_true, deadline_s=20, every_s=0.01)

    def state(self, name: str) -> CameraState:
        report = self.supervisor.reports().get(name)
        return report.state if report else CameraState.NEW

    def wait_for(self, name: str, state: CameraState, seconds: float = 1.0) -> None:
        self.look_until(lambda: self.state(name) is state, seconds)

    def listed(self, name: str) -> ListedCamera:
        (found,) = self.store.listed(name)
        return found


@pytest.fixture
def line(engine: Engine) -> Iterator[Line]:
    made = Line(CameraStore(engine, lease_s=600))
    yield made
    made.supervisor.close(5)
    assert made.doubles == []


def test_a_camera_runs_and_the_database_says_so(line: Line) -> None:
    line.add("press-1")
    line.wait_for("press-1", CameraState.RUNNING)
    line.look_until(lambda: line.listed("press-1").report.captured == 1)
    found = line.listed("press-1")
    assert (found.ingester, found.report.state, found.report.epoch) == ("a", CameraState.RUNNING, "epoch")
    assert 'loupe_camera_state{camera="press-1",state="running"} 1.0' in line.metrics.page().decode()
    assert line.told == []


def test_a_source_that_is_away_is_tried_again_with_growing_pauses_and_told_once(line: Line) -> None:
    line.behaviours["press-1"] = fails(SourceUnavailable("No answer.", "unreachable"))
    line.add("press-1")
    line.wait_for("press-1", CameraState.UNREACHABLE)
    starts: list[float] = []
    for _ in range(300):
        before = len(line.runs)
        line.look()
        if len(line.runs) > before:
            starts.append(line.clock.monotonic_s())
            poll_until(lambda: not line.alive, deadline_s=5, every_s=0.001)
    pauses = [later - earlier for earlier, later in pairwise(starts)]
    # 1 s doubling to 60 s, spread by a fifth, seen once a second.
    assert pauses[-1] >= 47
    assert max(pauses) <= 74
    assert 8 <= len(starts) <= 14
    assert [(one.previous, one.state) for one in line.told] == [
        (CameraState.STARTING, CameraState.UNREACHABLE)
    ]
    line.behaviours["press-1"] = films
    line.wait_for("press-1", CameraState.RUNNING)
    assert [(one.previous, one.state) for one in line.told[1:]] == [
        (CameraState.UNREACHABLE, CameraState.RUNNING)
    ]
    assert line.told[0].message == "No answer."


def test_one_cameras_fault_is_no_others(line: Line) -> None:
    line.behaviours["broken"] = fails(ZeroDivisionError("rtsp://user:hush@host"))
    line.add("broken", "press-1")
    line.wait_for("broken", CameraState.FAILED)
    line.wait_for("press-1", CameraState.RUNNING)
    report = line.supervisor.reports()["broken"]
    assert "ZeroDivisionError" in report.message
    assert "hush" not in report.message


def test_a_fault_is_logged_without_what_a_library_said(line: Line, caplog: pytest.LogCaptureFixture) -> None:
    line.behaviours["broken"] = fails(ZeroDivisionError("rtsp://user:hush@host"))
    line.add("broken")
    line.wait_for("broken", CameraState.FAILED)
    assert "ZeroDivisionError" in caplog.text
    assert "hush" not in caplog.text


def test_what_is_configured_wrong_waits_for_a_change(line: Line) -> None:
    line.behaviours["press-1"] = fails(BadRequest("That makes no sense."))
    line.add("press-1")
    line.wait_for("press-1", CameraState.MISCONFIGURED)
    for _ in range(20):
        line.look(60)
    assert line.runs == ["press-1"]
    line.behaviours["press-1"] = films
    line.store.change(StoredCamera(Camera("press-1", "synthetic:2")), "ann")
    line.wait_for("press-1", CameraState.RUNNING)


def test_a_change_restarts_that_camera_alone(line: Line) -> None:
    line.add("press-1", "press-2")
    line.wait_for("press-1", CameraState.RUNNING)
    line.wait_for("press-2", CameraState.RUNNING)
    sources: list[str] = []

    def remembers(stored: StoredCamera, stop: Event, on_progress: Callable[[Progress], None]) -> Progress:
        sources.append(stored.camera.source)
        return films(stored, stop, on_progress)

    line.behaviours["press-1"] = remembers
    line.store.change(StoredCamera(Camera("press-1", "synthetic:2")), "ann")
    line.look_until(lambda: sources)
    line.wait_for("press-1", CameraState.RUNNING)
    assert sorted(line.runs) == ["press-1", "press-1", "press-2"]
    assert sources == ["synthetic:2"]


def test_another_token_restarts_nothing(line: Line) -> None:
    line.add("press-1")
    line.wait_for("press-1", CameraState.RUNNING)
    stored = line.store.cameras()["press-1"]
    line.store.change(replace(stored, push_token_sha256="2" * 64), "ann")
    line.look(2)
    line.look(2)
    # The door reads it here.
    assert line.supervisor.configured["press-1"].push_token_sha256 == "2" * 64
    assert (line.runs, line.supervisor.runs("press-1")) == (["press-1"], True)
    # With anything else it is a change as any other.
    line.store.change(StoredCamera(Camera("press-1", "synthetic:2"), push_token_sha256="3" * 64), "ann")
    line.look_until(lambda: len(line.runs) == 2)


def test_pause_resume_and_remove(line: Line) -> None:
    line.add("press-1")
    line.wait_for("press-1", CameraState.RUNNING)
    line.store.pause(["press-1"], "ann", is_paused=True)
    line.look_until(lambda: line.listed("press-1").report.state is CameraState.PAUSED)
    assert line.alive == set()
    assert line.listed("press-1").ingester is None
    line.store.pause(["press-1"], "ann", is_paused=False)
    line.wait_for("press-1", CameraState.RUNNING)
    line.store.remove(["press-1"])
    line.look_until(lambda: not line.supervisor.reports())
    poll_until(lambda: not line.alive, deadline_s=10)
    assert "press-1" not in line.metrics.page().decode()


def test_a_source_that_is_through_has_ended_for_good(line: Line) -> None:
    line.behaviours["film"] = lambda *_: Progress("film", "epoch", captured=30, acknowledged=30)
    line.add("film")
    line.look_until(lambda: line.listed("film").report.state is CameraState.ENDED)
    assert line.listed("film").report.captured == 30
    assert line.listed("film").ingester is None
    for _ in range(5):
        line.look(60)
    assert line.runs == ["film"]
    assert line.told == []
    line.store.pause(["film"], "ann", is_paused=False)
    line.look_until(lambda: line.runs == ["film", "film"])


def test_a_hanging_camera_stops_no_other_and_is_never_run_twice(line: Line) -> None:
    released = Event()

    def hangs(stored: StoredCamera, stop: Event, on_progress: Callable[[Progress], None]) -> Progress:
        on_progress(Progress("stuck", "epoch"))
        released.wait(30)
        return Progress("stuck", "epoch")

    line.max_cameras = 1
    line.behaviours["stuck"] = hangs
    line.add("stuck")
    line.look_until(lambda: line.alive, seconds=0.1)
    line.wait_for("stuck", CameraState.HANGING, seconds=HANGING_AFTER_S / 4)
    line.add("press-1")
    line.wait_for("press-1", CameraState.RUNNING)
    line.store.change(StoredCamera(Camera("stuck", "synthetic:2")), "ann")
    for _ in range(10):
        line.look(STOP_WITHIN_S)
    assert line.runs.count("stuck") == 1
    line.behaviours["stuck"] = films
    released.set()
    line.look_until(lambda: line.runs.count("stuck") == 2, seconds=STOP_WITHIN_S)
    assert next(one.state for one in line.told if one.camera == "stuck") is CameraState.HANGING


def test_places_are_bounded_and_trouble_takes_none(engine: Engine) -> None:
    line = Line(CameraStore(engine, lease_s=600), max_cameras=3)
    for number in range(20):
        line.behaviours[f"bad-{number:02}"] = fails(SourceUnavailable("Gone.", "source-gone"))
    line.add(*(f"bad-{number:02}" for number in range(20)), *(f"good-{number}" for number in range(5)))
    try:
        line.look_until(lambda: sum(name.startswith("good") for name in line.alive) == 3, seconds=0.2)
        for _ in range(20):
            line.look(0.2)
        assert len(line.alive) == 3
        states = {one.stored.camera.camera: one.report.state for one in line.store.listed()}
        assert sorted(state.value for state in states.values()) == (
            ["running"] * 3 + ["source-gone"] * 20 + ["waiting"] * 2
        )
    finally:
        line.supervisor.close(5)


def test_two_ingesters_share_and_a_named_one_says_who_holds_its_camera(engine: Engine) -> None:
    first = Line(CameraStore(engine, lease_s=600), "a")
    second = Line(CameraStore(engine, lease_s=600), "b", patterns=("press-1", "b-*"))
    try:
        first.add("press-1")
        first.wait_for("press-1", CameraState.RUNNING)
        second.wait_for("press-1", CameraState.HELD_ELSEWHERE)
        assert "Ingester a" in second.supervisor.reports()["press-1"].message
        assert second.runs == []
        first.supervisor.close(5)
        second.wait_for("press-1", CameraState.RUNNING)
    finally:
        first.supervisor.close(5)
        second.supervisor.close(5)


def let_leases_run_out(engine: Engine) -> None:
    with writing(engine) as connection:
        connection.execute(update(camera_states).values(lease_until=NEVER))


def test_a_camera_that_was_lost_and_is_free_again_is_not_run_beside_its_last_run(engine: Engine) -> None:
    slow = Line(CameraStore(engine, lease_s=600), "slow")
    quick = Line(CameraStore(engine, lease_s=600), "quick")
    released = Event()

    def hangs(*_: object) -> Progress:
        released.wait(30)
        return Progress("press-1", "epoch")

    slow.behaviours["press-1"] = hangs
    try:
        slow.add("press-1")
        slow.look_until(lambda: slow.alive, seconds=0.1)
        let_leases_run_out(engine)
        quick.look_until(lambda: quick.alive, seconds=0.1)
        slow.look(5)
        quick.supervisor.close(5)
        for _ in range(3):
            slow.look(5)
        assert slow.runs == ["press-1"]
        slow.behaviours["press-1"] = films
        released.set()
        slow.wait_for("press-1", CameraState.RUNNING)
    finally:
        released.set()
        slow.supervisor.close(5)
        quick.supervisor.close(5)
    assert slow.doubles == []


def test_a_camera_that_another_ingester_took_is_stopped(engine: Engine) -> None:
    slow = Line(CameraStore(engine, lease_s=600), "slow")
    quick = Line(CameraStore(engine, lease_s=600), "quick")
    try:
        slow.add("press-1")
        slow.look_until(lambda: slow.alive, seconds=0.1)
        let_leases_run_out(engine)
        quick.look_until(lambda: quick.alive, seconds=0.1)
        slow.look_until(lambda: not slow.supervisor.reports())
        assert slow.alive == set()
    finally:
        slow.supervisor.close(5)
        quick.supervisor.close(5)
    assert quick.listed("press-1").ingester is None


@contextmanager
def outage(engine: Engine, folder: Path) -> Iterator[None]:
    """The database cannot be opened."""
    database = folder / "loupe.db"
    away = database.rename(folder / "away.db")
    database.mkdir()
    engine.dispose()
    yield
    database.rmdir()
    away.rename(database)
    engine.dispose()


def test_cameras_run_on_without_the_database(line: Line, engine: Engine, tmp_path: Path) -> None:
    line.add("press-1")
    line.wait_for("press-1", CameraState.RUNNING)
    with outage(engine, tmp_path):
        # In all less than what a camera without a sign is given; these give one only.
        for _ in range(5):
            line.look(3)
        assert line.alive == {"press-1"}
    line.look(3)
    assert line.listed("press-1").ingester == "a"


def test_a_camera_that_fails_without_the_database_is_told_and_started_again(
    line: Line, engine: Engine, tmp_path: Path
) -> None:
    falls = Event()

    def falling(stored: StoredCamera, stop: Event, on_progress: Callable[[Progress], None]) -> Progress:
        on_progress(Progress("press-1", "epoch", captured=1))
        assert falls.wait(30)
        raise SourceUnavailable("No answer.", "unreachable")

    line.behaviours["press-1"] = falling
    line.add("press-1")
    line.wait_for("press-1", CameraState.RUNNING)
    with outage(engine, tmp_path):
        falls.set()
        line.wait_for("press-1", CameraState.UNREACHABLE)
        line.behaviours["press-1"] = films
        line.wait_for("press-1", CameraState.RUNNING)
    assert [one.state for one in line.told] == [CameraState.UNREACHABLE, CameraState.RUNNING]


def test_after_an_outage_of_the_database_who_filmed_goes_on_and_nobody_films_it_twice(
    engine: Engine, tmp_path: Path
) -> None:
    one, two = Line(CameraStore(engine, lease_s=0.2), "one"), Line(CameraStore(engine, lease_s=0.2), "two")
    try:
        one.add("press-1")
        one.wait_for("press-1", CameraState.RUNNING)
        two.look()
        with outage(engine, tmp_path):
            two.look()
            one.look()
        # The lease ran out meanwhile, and the one who does not have it looks first.
        poll_until(lambda: one.listed("press-1").ingester is None, deadline_s=5)
        two.look()
        two.look()
        one.look(5)
        assert (two.runs, one.alive, one.listed("press-1").ingester) == ([], {"press-1"}, "one")
        one.supervisor.close(5)
        # An ingester that is dead by then is replaced all the same.
        two.look_until(lambda: two.alive, seconds=OTHERS_FIRST_S / 5)
    finally:
        one.supervisor.close(5)
        two.supervisor.close(5)


def test_close_stops_all_in_time_and_frees_the_leases(line: Line) -> None:
    released = Event()

    def hangs(*_: object) -> Progress:
        released.wait(30)
        return Progress("stuck", "epoch")

    line.behaviours["stuck"] = hangs
    line.add("press-1", "stuck")
    line.wait_for("press-1", CameraState.RUNNING)
    poll_until(lambda: line.alive == {"press-1", "stuck"}, deadline_s=5)
    closing = threading.Thread(target=line.supervisor.close, args=(0.5,))
    closing.start()
    line.clock.advance(1)
    closing.join(10)
    assert not closing.is_alive()
    assert line.listed("press-1").ingester is None
    assert line.alive == {"stuck"}
    released.set()
    poll_until(lambda: not line.alive, deadline_s=5)


def test_silence_and_its_end_are_told(line: Line) -> None:
    captured = 1

    def slow(stored: StoredCamera, stop: Event, on_progress: Callable[[Progress], None]) -> Progress:
        while not stop.wait(0.005):
            on_progress(Progress("press-1", "epoch", captured=captured))
        return Progress("press-1", "epoch", captured=captured)

    line.behaviours["press-1"] = slow
    line.add("press-1", silent_after_s=10)
    line.wait_for("press-1", CameraState.RUNNING)
    for _ in range(9):
        line.look()
    assert line.state("press-1") is CameraState.RUNNING
    line.wait_for("press-1", CameraState.SILENT)
    captured = 2
    line.wait_for("press-1", CameraState.RUNNING, seconds=0.5)
    assert [one.state for one in line.told] == [CameraState.SILENT, CameraState.RUNNING]
    assert replace(line.told[0], message="").previous is CameraState.RUNNING
