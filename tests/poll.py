"""Waiting in tests: poll with a deadline, never a fixed sleep."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
_PAUSE = threading.Event()


def poll_until(check: Callable[[], T], *, deadline_s: float, every_s: float = 0.05, what: str = "") -> T:
    """Call `check` until it returns something truthy and return that.

    Args:
        check: called again and again; its last value is shown on failure.
        deadline_s: when to give up, seconds from now.
        every_s: pause between calls.
        what: what is waited for, for the failure's sentence.

    Raises:
        AssertionError: the deadline passed.
    """
    end_monotonic_s = time.monotonic() + deadline_s
    while True:
        value = check()
        if value:
            return value
        if time.monotonic() >= end_monotonic_s:
            raise AssertionError(f"not within {deadline_s} s: {what or check}; last value: {value!r}")
        _PAUSE.wait(every_s)
