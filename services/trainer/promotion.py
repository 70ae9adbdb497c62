"""A fitted version is proved, compared and promoted or kept (arrow 6)."""

from __future__ import annotations

from pathlib import Path

from services.domain.model_version import Manifest, ModelAnnouncement, TrainingRequest
from services.domain.promotion import Decision


class Promotion:
    """What becomes of fitted versions."""

    def consider(self, folder: Path, manifest: Manifest, request: TrainingRequest) -> Decision:
        """Register a fitted version as candidate, prove it, replay the regression set, and note the decision.

        Calling it again with the same version and whatever was done before ends in the same decision.
        """
        raise NotImplementedError

    def resume(self, request: TrainingRequest) -> tuple[ModelAnnouncement, Decision] | None:
        """Return what became of the version that a request led to, deciding what a killed trainer left.

        None where no version of that training id is registered: fit. Announce it where the decision says
        promoted.
        """
        raise NotImplementedError
