"""A camera's old pictures give way; a film's wait; nothing goes without a wish."""

from __future__ import annotations

import time
from threading import Thread

from services.ingest.video_child.messages import End
from services.ingest.video_child.waiting import Decoded, Waiting
from tests.poll import poll_until

LONG_AGO_S = 60.0


def decoded(number: int, age_s: float = 0.0) -> Decoded:
    return Decoded(number, number, time.time() - age_s, time.monotonic() - age_s, b"jpeg")


def taken(waiting: Waiting) -> list[int]:
    """The numbers that come without waiting."""
    numbers = []
    while isinstance(item := waiting.take(0.0), Decoded):
        numbers.append(item.number)
    return numbers


def nothing() -> None:
    """Nothing."""


def test_nothing_is_sent_without_a_wish() -> None:
    waiting = Waiting(is_live=True)
    waiting.put(decoded(0), nothing)
    assert waiting.take(0.0) is None
    waiting.wish(1)
    assert taken(waiting) == [0]


def test_a_burst_of_a_camera_is_kept() -> None:
    waiting = Waiting(is_live=True)
    for number in range(3):
        waiting.put(decoded(number), nothing)
    waiting.wish(3)
    assert taken(waiting) == [0, 1, 2]


def test_old_pictures_of_a_camera_give_way_to_the_newest() -> None:
    waiting = Waiting(is_live=True)
    for number in range(3):
        waiting.put(decoded(number, LONG_AGO_S), nothing)
    waiting.wish(3)
    assert taken(waiting) == [2]


def test_the_only_picture_of_a_slow_camera_is_taken_though_it_is_old() -> None:
    waiting = Waiting(is_live=True)
    waiting.put(decoded(0, LONG_AGO_S), nothing)
    waiting.wish(1)
    assert taken(waiting) == [0]


def test_a_camera_never_waits_and_few_pictures_are_held() -> None:
    waiting = Waiting(is_live=True)
    for number in range(100):
        waiting.put(decoded(number), nothing)
    waiting.wish(100)
    numbers = taken(waiting)
    assert numbers[-1] == 99
    assert len(numbers) <= 4


def test_a_film_waits_for_room_and_loses_nothing() -> None:
    waiting = Waiting(is_live=False)

    def read() -> None:
        for number in range(20):
            waiting.put(decoded(number, LONG_AGO_S), nothing)
        waiting.end(End(20))

    reader = Thread(target=read)
    reader.start()
    waiting.wish(20)
    found: list[int] = []

    def all_taken() -> bool:
        found.extend(taken(waiting))
        return len(found) == 20

    poll_until(all_taken, deadline_s=5, every_s=0.001)
    reader.join(5)
    assert found == list(range(20))
    assert waiting.take(1.0) == End(20)


def test_the_end_comes_after_the_last_picture() -> None:
    waiting = Waiting(is_live=True)
    waiting.put(decoded(0), nothing)
    waiting.end(End(1))
    assert waiting.take(0.0) is None
    waiting.wish(1)
    assert taken(waiting) == [0]
    assert waiting.take(0.0) == End(1)
