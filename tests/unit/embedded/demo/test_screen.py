"""What a demo shows fits a terminal of 80 columns."""

from __future__ import annotations

import pytest
from rich.console import Console

from services.domain.ledger import CameraBalance
from services.embedded.demo.screen import LiveView, Screen, draw
from services.embedded.demo.watch import CameraView, Latency

SEEN = CameraView(
    judged=1234, anomalous=567, quarantined=8, last_subject="normal-photo-17.jpg", last_is_anomalous=True,
    last_score=12.34,
)  # fmt: skip
VIEW = LiveView({"camera-1": 1234}, {"camera-1": SEEN}, Latency(12.0, 30.0, 45.0), 3, 0.4, 60.0)


@pytest.mark.parametrize("width", [80, 140])
def test_numbers_and_headings_are_whole(width: int) -> None:
    console = Console(width=width, force_terminal=True, color_system=None)
    with console.capture() as caught:
        console.print(draw(VIEW))
        balances = {"camera-1": CameraBalance(1234, 1200, 8, 20), "camera-2": CameraBalance(10, 4, 0, 0)}
        Screen(console).close(VIEW, balances, {})
    shown = caught.get()
    assert max(map(len, shown.splitlines())) <= width
    words = (
        "captured",
        "anomalies",
        "quarantined",
        "missing",
        "ANOMALY 12.34",
        "does not balance",
    )
    for word in words:
        assert word in shown
