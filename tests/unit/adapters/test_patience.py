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
