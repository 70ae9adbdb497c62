"""What is on its way: bounds, order, end."""

from __future__ import annotations

from threading import Event

from services.domain.errors import BrokerUnavailable, LoupeError
from services.domain.frame import RecordPosition
from services.ingest.in_flight import InFlight, Limits
from tests.poll import poll_until


class HeldDelivery:
    """Acknowledged, or given up, when the test says so."""

    def __init__(self) -> None:
        self.ended = Event()
        self.is_lost = False

    def result(self, timeout_s: float) -> RecordPosition:
        if not self.ended.wait(timeout_s) or self.is_lost:
            raise BrokerUnavailable("given up")
        return RecordPosition("t", 0, 0)


def test_frames_in_flight_are_bounded_in_number_and_bytes() -> None:
    held = HeldDelivery()
    by_number = InFlight(Limits(max_in_flight_frames=2, max_in_flight_bytes=1000))
    by_number.add(held, 1, lambda _: None)
    assert by_number.wait_for_room(0)
    by_number.add(held, 1, lambda _: None)
    assert not by_number.wait_for_room(0.01)
    by_bytes = InFlight(Limits(max_in_flight_frames=9, max_in_flight_bytes=10))
    by_bytes.add(held, 10, lambda _: None)
    assert not by_bytes.wait_for_room(0.01)
    held.ended.set()
    assert by_number.wait_for_room(5)
    assert by_bytes.wait_for_room(5)
    by_number.close()
    by_bytes.close()


def test_ends_are_told_in_the_order_of_sending() -> None:
    flight = InFlight(Limits())
    deliveries = [HeldDelivery() for _ in range(3)]
    deliveries[1].is_lost = True
    told: list[tuple[int, str | None]] = []
    for number, delivery in enumerate(deliveries):
        flight.add(delivery, 1, lambda error, number=number: told.append((number, error and error.message)))  # type: ignore[misc]  # bound now
    for delivery in reversed(deliveries):
        delivery.ended.set()
    assert flight.wait_until_empty(5)
    assert told == [(0, None), (1, "given up"), (2, None)]
    flight.close()


def test_a_record_whose_producer_says_nothing_yet_is_neither_acknowledged_nor_given_up() -> None:
    flight, held, told = InFlight(Limits()), HeldDelivery(), list[LoupeError | None]()
    flight.add(held, 1, told.append)
    # Longer than one look takes.
    assert not flight.wait_until_empty(1.2)
    assert told == []
    held.ended.set()
    assert flight.wait_until_empty(5)
    assert told == [None]
    flight.close()


def test_closing_ends_the_thread() -> None:
    flight = InFlight(Limits())
    flight.close()
    poll_until(lambda: not flight._thread.is_alive(), deadline_s=5)
