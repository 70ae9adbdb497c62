"""Student's t against printed tables."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.vision.student_t import quantile, upper_tail


@pytest.mark.parametrize(
    ("degrees", "tail", "expected"),
    # From printed tables of Student's t.
    [
        (1, 0.025, 12.706),
        (2, 0.05, 2.920),
        (5, 0.01, 3.365),
        (10, 0.005, 3.169),
        (30, 0.025, 2.042),
        (1000, 0.05, 1.646),
    ],
)
def test_quantile_agrees_with_tables(degrees: int, tail: float, expected: float) -> None:
    assert quantile(tail, degrees) == pytest.approx(expected, abs=6e-4)


def test_one_degree_is_the_cauchy_distribution() -> None:
    assert upper_tail(1.0, 1) == pytest.approx(0.25, abs=1e-12)


@given(st.floats(1e-6, 0.999), st.integers(1, 5000))
def test_quantile_inverts_the_tail(tail: float, degrees: int) -> None:
    assert upper_tail(quantile(tail, degrees), degrees) == pytest.approx(tail, rel=1e-6)


@given(st.floats(-1e6, 1e6), st.integers(1, 200))
def test_tails_are_symmetric_and_in_range(t: float, degrees: int) -> None:
    assert 0 <= upper_tail(t, degrees) <= 1
    assert upper_tail(t, degrees) + upper_tail(-t, degrees) == pytest.approx(1, abs=1e-12)
