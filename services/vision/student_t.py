"""Student's t distribution: the tail beyond a value, and the value with a given tail.

Judging a frame needs the first, setting a threshold the second. Pure Python, some 10 us a call,
so that serving needs no SciPy.
"""

from __future__ import annotations

import math

_TINY = 1e-300
_MAX_TERMS = 300


def upper_tail(t: float, degrees: int) -> float:
    """Return P(T >= t) for `degrees` >= 1 degrees of freedom; accurate to about 1e-12.

    >>> round(upper_tail(12.706, 1), 4)
    0.025
    >>> round(upper_tail(-2.045, 29), 3)
    0.975
    """
    if math.isinf(t):
        return 0.0 if t > 0 else 1.0
    half_tail = 0.5 * _incomplete_beta(degrees / 2, 0.5, degrees / (degrees + t * t))
    return half_tail if t >= 0 else 1.0 - half_tail


def quantile(tail: float, degrees: int) -> float:
    """Return the t with P(T >= t) = `tail`, for 0 < tail < 1.

    >>> round(quantile(0.025, 1), 2)
    12.71
    """
    if tail > 0.5:
        return -quantile(1.0 - tail, degrees)
    low, high = 0.0, 1.0
    while upper_tail(high, degrees) > tail:
        low, high = high, high * 2
    for _ in range(60):  # each halves the error: to the last bits of a float
        middle = (low + high) / 2
        if upper_tail(middle, degrees) > tail:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _incomplete_beta(a: float, b: float, x: float) -> float:
    """Return the regularised incomplete beta function I_x(a, b)."""
    if x <= 0.0:
        return 0.0
    if x >= 1.0:
        return 1.0
    front = math.exp(
        math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    )
    if x < (a + 1) / (a + b + 2):
        return front * _beta_fraction(a, b, x) / a
    return 1.0 - front * _beta_fraction(b, a, 1.0 - x) / b


def _beta_fraction(a: float, b: float, x: float) -> float:
    """Return the continued fraction of the incomplete beta function (Lentz's method)."""
    c = 1.0
    d = 1.0 / _not_zero(1.0 - (a + b) * x / (a + 1.0))
    fraction = d
    for m in range(1, _MAX_TERMS):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        d = 1.0 / _not_zero(1.0 + even * d)
        c = _not_zero(1.0 + even / c)
        fraction *= d * c
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        d = 1.0 / _not_zero(1.0 + odd * d)
        c = _not_zero(1.0 + odd / c)
        step = d * c
        fraction *= step
        if abs(step - 1.0) < 1e-14:
            break
    return fraction


def _not_zero(value: float) -> float:
    return value if abs(value) > _TINY else _TINY
