"""What a load must keep to pass; every threshold is on a number that the run really has."""

from __future__ import annotations

from dataclasses import dataclass

from loadtest.generator import Sent
from loadtest.verdicts import Quantiles


@dataclass(frozen=True)
class Thresholds:
    """Limits of a load test.

    Attributes:
        min_rate_ratio: of the rate asked for that must really be sent; else the generator was the bottleneck.
        max_late_p99_ms: frames may be sent so late; else the rate was not even.
        max_missing_frames: frames without a verdict.
        max_p50_ms: capture to stored verdict.
        max_p99_ms: capture to stored verdict.
    """

    min_rate_ratio: float = 0.98
    max_late_p99_ms: float = 50.0
    max_missing_frames: int = 0
    max_p50_ms: float = 100.0
    max_p99_ms: float = 400.0

    def broken_by(self, sent: Sent, stored: int, latency: Quantiles | None) -> list[str]:
        """Return a sentence per broken threshold."""
        broken = []
        if sent.rate_fps and sent.achieved_fps < self.min_rate_ratio * sent.rate_fps:
            broken.append(f"sent {sent.achieved_fps:.1f} frames/s instead of {sent.rate_fps:.1f}")
        if sent.unsent:
            broken.append(f"{sent.unsent} frames were due and could not be sent")
        if sent.late_p99_ms > self.max_late_p99_ms:
            broken.append(f"frames were sent up to {sent.late_p99_ms:.0f} ms late (p99)")
        if sent.frames - stored > self.max_missing_frames:
            broken.append(f"{sent.frames - stored} of {sent.frames} frames have no verdict")
        if latency is None:
            broken.append("no latency was measured")
        elif latency.p50_ms > self.max_p50_ms or latency.p99_ms > self.max_p99_ms:
            broken.append(
                f"latency p50 {latency.p50_ms:.0f} ms, p99 {latency.p99_ms:.0f} ms; "
                f"at most {self.max_p50_ms:.0f} and {self.max_p99_ms:.0f}"
            )
        return broken
