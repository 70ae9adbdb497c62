"""Pictures on demand, on the broker in memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from threading import Event

import pytest

from services.adapters.broker.memory import MemoryBroker, MemoryConsumer
from services.adapters.clock import SystemClock
from services.domain.errors import BrokerUnavailable
from services.domain.topics import TRIGGERS
from services.domain.trigger import Trigger
from services.ingest.sources.folder import FolderSource
from services.ingest.sources.protocol import Settled, Shot, Skipped, Taken, Unreadable
from services.ingest.sources.triggers import (
    MAX_AGE_S,
    MAX_WAITING,
    NEXT_WITHIN_S,
    PICTURE_WITHIN_S,
    TriggeredSource,
    TriggerFeed,
)
from services.wire.record import OutRecord
from services.wire.trigger import encode_trigger
from tests.poll import poll_until


class Late(SystemClock):
    """A clock that can be ahead of the records."""

    ahead_s = 0.0

    def now(self) -> datetime:
        return super().now() + timedelta(seconds=self.ahead_s)


class Line:
    """A broker, a feed on it, and a person who sends triggers."""

    def __init__(self) -> None:
        self.broker, self.clock = MemoryBroker(), Late()
        self.feed = TriggerFeed(self._connect, self.clock)
        self.refusals = 0
        self.refuses_with: Exception = BrokerUnavailable("away")

    def _connect(self) -> MemoryConsumer:
        if self.refusals:
            self.refusals -= 1
            raise self.refuses_with
        return MemoryConsumer(self.broker, topics=[TRIGGERS.name], group="ingester-1")

    def trigger(self, trigger_id: str, part_id: str | None = None, camera: str = "cam-1") -> None:
        self.broker.append(encode_trigger(Trigger(camera, trigger_id, self.clock.now(), part_id)))


@pytest.fixture
def line() -> Iterator[Line]:
    line = Line()
    yield line
    line.feed.close()


class Film:
    """A live source: a numbered picture a step, as long as it is not told to be blind."""

    def __init__(self, *, every_s: float = 0.02) -> None:
        self.number, self.is_blind, self._every_s = 0, False, every_s

    def shots(self, stop: Event) -> Iterator[Taken | None]:
        while not stop.wait(self._every_s):
            if self.is_blind:
                yield None
            else:
                self.number += 1
                yield Shot(b"%d" % self.number, "image/jpeg", f"film:{self.number}")


def next_picture(shots: Iterator[Taken | None], within_s: float = 10) -> Taken:
    end_s = time.monotonic() + within_s
    for one in shots:
        if one is not None:
            return one
        assert time.monotonic() < end_s, "no picture"
    raise AssertionError("the source ended")


def none_comes(shots: Iterator[Taken | None], for_s: float) -> bool:
    end_s = time.monotonic() + for_s
    while time.monotonic() < end_s:
        if next(shots) is not None:
            return False
    return True


def test_a_live_camera_answers_with_the_first_picture_after_the_trigger(line: Line) -> None:
    film = Film()
    shots = TriggeredSource(film, line.feed, "cam-1", is_live=True).shots(Event())
    assert none_comes(shots, 0.3)
    before = film.number
    assert before > 0
    line.trigger("t-1", "P1")
    shot = next_picture(shots)
    assert isinstance(shot, Shot)
    assert int(shot.image) > before
    assert shot.part_id == "P1"
    assert none_comes(shots, 0.3)


def test_a_slow_camera_answers_with_the_newest_picture(line: Line) -> None:
    film = Film()
    shots = TriggeredSource(film, line.feed, "cam-1", is_live=True).shots(Event())
    assert none_comes(shots, 0.1)
    film.is_blind = True
    assert none_comes(shots, 0.1)
    newest = film.number
    line.trigger("t-1")
    asked_s = time.monotonic()
    shot = next_picture(shots)
    assert time.monotonic() - asked_s >= NEXT_WITHIN_S
    assert isinstance(shot, Shot)
    assert int(shot.image) == newest


@pytest.mark.parametrize("is_live", [True, False])
def test_a_trigger_without_a_picture_is_declared(line: Line, is_live: bool) -> None:
    film = Film()
    film.is_blind = True
    shots = TriggeredSource(film, line.feed, "cam-1", is_live=is_live).shots(Event())
    next(shots)
    line.trigger("t-1")
    missed = next_picture(shots)
    assert missed == Unreadable("t-1", f"There was no picture within {PICTURE_WITHIN_S:g} s.")


def test_each_trigger_takes_the_next_file(line: Line, tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.jpg").write_bytes(b"%d" % number)
    shots = TriggeredSource(FolderSource(tmp_path), line.feed, "cam-1", is_live=False).shots(Event())
    assert none_comes(shots, 1)
    assert len(list(tmp_path.glob("*.jpg"))) == 3
    line.trigger("t-1", "P1")
    line.trigger("t-2", "P2")
    taken = [next_picture(shots), next_picture(shots)]
    assert [(shot.subject, shot.part_id) for shot in taken if isinstance(shot, Shot)] == [
        ("0.jpg", "P1"), ("1.jpg", "P2"),
    ]  # fmt: skip
    assert none_comes(shots, 0.6)


class Fixed:
    """Gives what it was made with, and then nothing."""

    def __init__(self, *taken: Taken) -> None:
        self._taken = taken

    def shots(self, stop: Event) -> Iterator[Taken | None]:
        yield from self._taken
        while not stop.wait(0.05):
            yield None


@pytest.mark.parametrize("is_live", [True, False])
def test_pictures_that_nobody_wanted_are_not_declared(line: Line, is_live: bool) -> None:
    inner = Fixed(Skipped(3), Shot(b"1", "image/jpeg", "one"))
    shots = TriggeredSource(inner, line.feed, "cam-1", is_live=is_live).shots(Event())
    assert none_comes(shots, 0.3)


def test_an_unreadable_picture_answers_a_trigger(line: Line) -> None:
    ended: list[Settled] = []
    inner = Fixed(Unreadable("a.jpg", "gone", ended.append))
    shots = TriggeredSource(inner, line.feed, "cam-1", is_live=False).shots(Event())
    next(shots)
    line.trigger("t-1")
    assert next_picture(shots) == Unreadable("a.jpg", "gone", ended.append)


def test_the_end_of_the_inner_source_is_the_end(line: Line) -> None:
    class Short:
        def shots(self, stop: Event) -> Iterator[Taken | None]:  # noqa: ARG002  # the Protocol's
            yield None

    for is_live in (True, False):
        assert set(TriggeredSource(Short(), line.feed, "cam-1", is_live=is_live).shots(Event())) == {None}


def counted(line: Line, check: Callable[[], bool]) -> None:
    poll_until(check, deadline_s=10, what=f"counts, now {line.feed.counts}")


def test_triggers_that_cannot_be_answered_are_counted(line: Line) -> None:
    waiting = line.feed.register("cam-1")
    line.trigger("t-1", camera="elsewhere")
    line.broker.append(OutRecord(TRIGGERS.name, b"cam-1", b"{"))
    counted(line, lambda: (line.feed.counts.not_here, line.feed.counts.malformed) == (1, 1))
    for number in range(MAX_WAITING + 2):
        line.trigger(f"t-{number}")
    counted(line, lambda: line.feed.counts.too_many == 2)
    assert waiting.qsize() == MAX_WAITING
    line.clock.ahead_s = MAX_AGE_S + 1
    line.broker.append(OutRecord(TRIGGERS.name, b"cam-1", b""))
    counted(line, lambda: line.feed.counts.too_old == 1)


def test_a_camera_that_is_registered_anew_keeps_its_place(line: Line) -> None:
    old, new = line.feed.register("cam-1"), line.feed.register("cam-1")
    line.feed.unregister("cam-1", old)
    line.trigger("t-1")
    assert new.get(timeout=10).trigger.trigger_id == "t-1"
    line.feed.unregister("cam-1", new)
    line.trigger("t-2")
    counted(line, lambda: line.feed.counts.not_here == 1)


def test_a_broker_that_is_away_is_asked_again(line: Line) -> None:
    line.refusals = 2
    waiting = line.feed.register("cam-1")
    line.trigger("t-1")
    assert waiting.get(timeout=20).trigger.trigger_id == "t-1"
    line.feed.close()
    line.feed.close()


def test_a_fault_that_nobody_foresaw_does_not_end_the_feed(line: Line) -> None:
    line.refusals, line.refuses_with = 1, ValueError("a library's own")
    waiting = line.feed.register("cam-1")
    poll_until(lambda: not line.refusals, deadline_s=10)
    line.trigger("t-1")
    poll_until(lambda: waiting.qsize() == 1, deadline_s=10)
