"""The rate of a drained backlog, from the times its verdicts were stored."""

from __future__ import annotations

import pytest

from loadtest.verdicts import Quantiles, steady_rate_fps


def test_a_steady_stream_has_its_rate_whatever_its_batches() -> None:
    one_by_one = [n / 50 for n in range(1000)]
    in_batches = [n // 25 * 0.5 for n in range(1000)]
    assert steady_rate_fps(one_by_one) == pytest.approx(50, rel=0.01)
    assert steady_rate_fps(in_batches) == pytest.approx(50, rel=0.01)


def test_a_slow_begin_and_a_slow_end_do_not_count() -> None:
    begin = [n * 1.0 for n in range(10)]
    middle = [10 + n / 100 for n in range(1000)]
    end = [20 + n * 1.0 for n in range(10)]
    assert steady_rate_fps([*end, *begin, *middle]) == pytest.approx(100, rel=0.01)


def test_nothing_and_one_moment_have_no_rate() -> None:
    assert steady_rate_fps([]) == 0
    assert steady_rate_fps([5.0] * 30) == 0


def test_quantiles_are_of_all_values() -> None:
    found = Quantiles.of([float(n) for n in range(101)])
    assert (found.mean_ms, found.p50_ms, found.p95_ms, found.p99_ms) == (50, 50, 95, 99)
