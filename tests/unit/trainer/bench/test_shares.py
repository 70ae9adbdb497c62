"""Wilson's interval against published values."""

from __future__ import annotations

import pytest

from services.trainer.bench.shares import wilson


@pytest.mark.parametrize(
    ("share", "count", "low", "high"),
    [
        # Newcombe, "Two-sided confidence intervals for the single proportion", Statistics in Medicine 17,
        # 1998, table I, method 3.
        (81 / 263, 263, 0.2553, 0.3662),
        (15 / 148, 148, 0.0624, 0.1605),
        (0 / 20, 20, 0.0000, 0.1611),
        (1 / 29, 29, 0.0061, 0.1718),
    ],
)
def test_equals_published_values(share: float, count: int, low: float, high: float) -> None:
    assert wilson(share, count) == pytest.approx((low, high), abs=5e-5)


def test_one_hundred_percent_mirrors_none() -> None:
    low, high = wilson(1.0, 20)
    assert (1 - high, 1 - low) == pytest.approx(wilson(0.0, 20))
