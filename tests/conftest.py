"""What all tests share: the real servers as fixtures."""

from __future__ import annotations

import pytest

pytest_plugins = ("tests.servers", "tests.photos")


def pytest_configure(config: pytest.Config) -> None:
    """Let third parties' own warnings pass; none is about our code."""
    # kafka-python 3.0 reads its schemas by a call that Python 3.11 calls legacy.
    config.addinivalue_line("filterwarnings", "ignore:(read|open)_text is deprecated:DeprecationWarning")
