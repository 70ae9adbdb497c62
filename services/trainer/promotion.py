"""A fitted version is registered, proved, compared with the one that serves, and promoted or kept (arrow 6).

The rule is `services.domain.promotion`; this gathers its evidence and notes what came of it. Killed
anywhere, it leaves a candidate, which nobody serves and which is considered again. Announces nothing.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from services.adapters.clock import Clock
from services.domain.errors import CorruptModel, UnknownObject, UnknownProject
from services.domain.model_version import Manifest, ModelAnnouncement, TrainingRequest, VersionState
from services.domain.promotion import Contender, Decision, Evidence, decide
from services.trainer.datasets import Datasets
from services.trainer.proving import Proof, Prover
from services.trainer.registry import Registry, VersionRecord
from services.trainer.regression import contender_of, evidence_of, regression_set, replay
from services.vision.runtime import OnnxModel

logger = logging.getLogger(__name__)

# Images of a replay that are named in the row; all of them count.
_NAMED_IMAGES = 50
_THREADS = 2
_SERVES = "It serves now."


class Promotion:
    """What becomes of fitted versions.

    Attributes:
        registry: where they are.
    """

    def __init__(
        self, registry: Registry, datasets: Datasets, prover: Prover, clock: Clock, work_folder: Path
    ) -> None:
        """Bring other versions into folders below `work_folder`, for as long as they are compared."""
        self.registry = registry
        self._datasets = datasets
        self._prover = prover
        self._clock = clock
        self._work_folder = work_folder

    def consider(self, folder: Path, manifest: Manifest, request: TrainingRequest) -> Decision:
        """Register a fitted version as candidate, prove it, replay the regression set, and note the decision.

        Calling it again with the same version and whatever was done before ends in the same decision.
        Announce the version where it says promoted.

        Raises:
            CorruptModel: the folder is not what its manifest says; nothing was registered.
            BadRequest: the project's name cannot be one.
            RetryLater: the store or the database is away; try again.
        """
        self.registry.register(folder, manifest, request.training_id)
        record = self.registry.record(manifest.project, manifest.version)
        if record.state is VersionState.CANDIDATE:
            record = self._decide(folder, manifest)
        return decision_of(record)

    def resume(self, request: TrainingRequest) -> tuple[ModelAnnouncement, Decision] | None:
        """Return what became of the version that a request led to, deciding what a killed trainer left.

        None where no version of that training id is registered: fit. Announce it where the decision says
        promoted.

        Raises:
            RetryLater: the store or the database is away; try again.
        """
        announcement = self.registry.of_training(request.training_id)
        if announcement is None:
            return None
        record = self.registry.record(announcement.project, announcement.version)
        if record.state is VersionState.CANDIDATE:
            record = self._reconsider(announcement)
        return announcement, decision_of(record)

    def _reconsider(self, announcement: ModelAnnouncement) -> VersionRecord:
        """Decide on a candidate whose folder is in the object store only."""
        with self._scratch() as scratch:
            folder = Path(scratch, "candidate")
            try:
                manifest = self.registry.fetch(announcement, folder)
            except (CorruptModel, UnknownObject) as error:
                reasons = {"reasons": [f"It is not whole in the object store: {error.message}"]}
                return self._note(announcement.project, announcement.version, False, reasons)
            return self._decide(folder, manifest)

    def _decide(self, folder: Path, manifest: Manifest) -> VersionRecord:
        proof = self._prover.prove(folder, manifest)
        evidence = self._evidence(folder, manifest, proof)
        decision = decide(evidence)
        return self._note(
            manifest.project, manifest.version, decision.is_promoted, _as_json(evidence, decision)
        )

    def _note(
        self, project: str, version: str, is_promoted: bool, evidence: Mapping[str, Any]
    ) -> VersionRecord:
        state = VersionState.PROMOTED if is_promoted else VersionState.KEPT
        record = self.registry.decide(project, version, state, evidence, self._clock.now())
        logger.info("%s %s: %s; %s", project, version, record.state, " ".join(record.reasons))
        return record

    def _evidence(self, folder: Path, manifest: Manifest, proof: Proof) -> Evidence:
        """Replay the regression set by the candidate and the version that serves."""
        candidate = contender_of(manifest, proof.sentence, is_proved=proof.is_proved)
        if not proof.is_proved:
            return Evidence(candidate)
        with self._scratch() as scratch:
            models = [OnnxModel(folder, threads=_THREADS)]
            current = self._current(manifest.project, Path(scratch, "current"))
            if current is not None:
                models.append(current[1])
            replayed = replay(models, regression_set(self._datasets, manifest.project))
            return evidence_of(replayed, candidate, None if current is None else current[0])

    def _current(self, project: str, folder: Path) -> tuple[Contender, OnnxModel] | None:
        """Return the version that serves; None where none does, or none that can be run any more."""
        try:
            announcement = self.registry.latest(project)
        except UnknownProject:
            return None
        try:
            manifest = self.registry.fetch(announcement, folder)
            model = OnnxModel(folder, threads=_THREADS)
        except (CorruptModel, UnknownObject) as error:
            logger.warning("version %s cannot be compared with: %s", announcement.version, error.message)
            return None
        return contender_of(manifest, _SERVES, is_proved=True), model

    def _scratch(self) -> tempfile.TemporaryDirectory[str]:
        self._work_folder.mkdir(parents=True, exist_ok=True)
        return tempfile.TemporaryDirectory(dir=self._work_folder, prefix="promotion-")


def decision_of(record: VersionRecord) -> Decision:
    """Return what was decided of a version, by the rule or by hand."""
    return Decision(record.state is VersionState.PROMOTED, record.reasons)


def _as_json(evidence: Evidence, decision: Decision) -> dict[str, Any]:
    named = replace(evidence, disputed=evidence.disputed[:_NAMED_IMAGES])
    return {
        **asdict(named),
        "disputed_images": len(evidence.disputed),
        "reasons": list(decision.reasons),
    }
