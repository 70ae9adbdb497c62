"""What reviewers corrected goes into the newest version's memory, in seconds instead of a fit (arrow 6)."""

from __future__ import annotations

from pathlib import Path

from services.domain.model_version import TrainingRequest


class QuickUpdate:
    """Makes a new version out of the one that serves and what reviewers said of its verdicts."""

    def run(self, request: TrainingRequest, folder: Path) -> Path:
        """Return the new model folder, made below `folder`; give it to `Promotion.consider`.

        Raises:
            UnknownProject: there is no version to update.
            Rejected: nothing was corrected, or a whole fit is needed; the sentence says why.
            RetryLater: a neighbour is away.
        """
        raise NotImplementedError
