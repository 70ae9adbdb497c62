"""Fewer pictures a second than there are: how many, and which."""

from __future__ import annotations

import pytest

from services.ingest.video_child.thinning import Thinning


@pytest.mark.parametrize(
    ("wanted_fps", "film_fps", "expected"),
    [
        (None, 30, 300),
        # Ten seconds of film, in each of which so many are taken.
        (10, 30, 100),
        (25, 30, 250),
        (15, 29.97, 150),
        (30, 30, 300),
        (60, 30, 300),
        (0.5, 30, 5),
    ],
)
def test_ten_seconds_give_ten_times_the_rate(
    wanted_fps: float | None, film_fps: float, expected: int
) -> None:
    thinning = Thinning(wanted_fps, film_fps, is_live=False)
    # Milliseconds, as Matroska rounds them.
    taken = sum(thinning.wants(round(number / film_fps, 3)) for number in range(300))
    assert taken == expected


def test_pictures_without_a_time_are_one_after_the_other() -> None:
    thinning = Thinning(5, 10, is_live=False)
    assert [thinning.wants(None) for _ in range(6)] == [True, False, True, False, True, False]


def test_a_time_that_steps_back_does_not_stop_the_film() -> None:
    thinning = Thinning(5, 10, is_live=False)
    times_s = [100.0, 100.1, 100.2, 3.0, 3.1, 3.2]
    assert sum(thinning.wants(time_s) for time_s in times_s) == 3
