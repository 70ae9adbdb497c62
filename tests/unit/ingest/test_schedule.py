"""The timetable of frames."""

from __future__ import annotations

import pytest

from services.ingest.schedule import Schedule


def test_due_times_do_not_drift_when_frames_are_a_little_late() -> None:
    schedule = Schedule(fps=3, start_s=100.0)
    for _ in range(3000):
        schedule.advance(schedule.due_s + 0.2)
    assert schedule.due_s == pytest.approx(1100.0)


def test_after_a_long_delay_missed_frames_are_not_made_up() -> None:
    schedule = Schedule(fps=10, start_s=0.0)
    schedule.advance(0.0)
    schedule.advance(60.0)
    assert schedule.due_s == pytest.approx(60.1)


def test_without_a_rate_every_frame_is_due_at_once() -> None:
    schedule = Schedule(None, start_s=5.0)
    for now_s in (5.0, 5.1, 90.0):
        assert schedule.due_s <= now_s
        schedule.advance(now_s)
