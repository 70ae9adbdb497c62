"""What all tests share: the real servers and the real photos as fixtures."""

from __future__ import annotations

pytest_plugins = ("tests.servers", "tests.photos")
