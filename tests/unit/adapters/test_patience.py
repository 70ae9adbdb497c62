"""Waiting for neighbours, and giving up at a flood of poison."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from services.adapters.broker.patience import POISON_MIN_RECORDS, Patience, PoisonGuard
from services.domain.errors import BrokerUnavailable, MalformedRecord, PoisonShareExceeded
from tests.poll import poll_until


def failing(times: int, error: Exception) -> Callable[[], str]:
    left = [error] * times

    def work() -> str:
        if left:
            raise left.pop()
        return "done"

    return work


def test_work_that_fails_for_want_of_a_neighbour_is_done_in_the_end(caplog: pytest.LogCaptureFixture) -> None:
    assert Patience().call(failing(2, BrokerUnavailable("Away."))) == "done"
    assert caplog.text.count("Away. Again in") == 2


def test_other_errors_are_not_tried_again() -> None:
    with pytest.raises(MalformedRecord):
        Patience().call(failing(1, MalformedRecord("Never.")))


def test_stopping_ends_the_wait_at_once() -> None:
    patience, caught = Patience(), []

    def wait() -> None:
        try:
            patience.call(failing(1000, BrokerUnavailable("Away.")))
        except BrokerUnavailable as error:
            caught.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    patience.is_stopping.set()
    waiting.join(5)
    poll_until(lambda: caught, deadline_s=5)


def test_a_flood_of_poison_is_told_from_single_drops() -> None:
    guard = PoisonGuard(0.5)
    for _ in range(100):
        guard.note(good=1, refused=1)
    with pytest.raises(PoisonShareExceeded):
        guard.note(good=0, refused=1)


def test_a_few_records_say_nothing() -> None:
    guard = PoisonGuard(0.0)
    guard.note(good=0, refused=POISON_MIN_RECORDS - 1)
    with pytest.raises(PoisonShareExceeded):
        guard.note(good=0, refused=1)


def test_a_flood_names_its_most_frequent_cause_and_an_example() -> None:
    guard = PoisonGuard(0.5)
    guard.note(good=0, refused=10, causes=["HashMismatch"] * 10, examples=["t:0:1"] * 10)
    with pytest.raises(PoisonShareExceeded, match=r"Most often: MalformedRecord \(15\), for example t:0:9\."):
        guard.note(good=0, refused=15, causes=["MalformedRecord"] * 15, examples=["t:0:9"] * 15)


class FakeTime(threading.Event):
    """An event whose waits take no time, and are noted; set after a minute of them."""

    def __init__(self) -> None:
        super().__init__()
        self.waited_s: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.waited_s.append(timeout or 0.0)
        if sum(self.waited_s) >= 60:
            self.set()
        return self.is_set()


def test_a_neighbour_that_stays_away_is_asked_ever_more_rarely() -> None:
    patience, asked = Patience(), []
    patience.is_stopping = time = FakeTime()

    def refuse() -> None:
        asked.append(1)
        raise BrokerUnavailable("Away.")

    with pytest.raises(BrokerUnavailable):
        patience.call(refuse)
    # 0.1, 0.2, 0.4 ... 3.2 take 6.3 s, then every 5 s: 17 waits to the minute.
    assert len(asked) <= 18
    assert time.waited_s == sorted(time.waited_s)
    assert time.waited_s[0] == pytest.approx(0.1)
    assert time.waited_s[-1] == 5.0
