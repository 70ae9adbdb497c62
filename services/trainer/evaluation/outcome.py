"""What was said of one photo, and what is true (arrow 6)."""

from __future__ import annotations

from dataclasses import dataclass

from services.domain.label import Verdict


@dataclass(frozen=True, slots=True)
class Outcome:
    """One judged photo.

    Attributes:
        name: for reports.
        truth: what people say.
        score: higher is more anomalous.
        verdict: what the model says.
        confidence: of that verdict (0-1).
        types: anomaly types in truth.
        found_types: anomaly types that the model found.
    """

    name: str
    truth: Verdict
    score: float
    verdict: Verdict
    confidence: float = 0.0
    types: tuple[str, ...] = ()
    found_types: tuple[str, ...] = ()

    @property
    def is_anomalous(self) -> bool:
        """Tell whether it is, in truth."""
        return self.truth is Verdict.ANOMALY

    @property
    def is_found_anomalous(self) -> bool:
        """Tell whether the model says so."""
        return self.verdict is Verdict.ANOMALY
