"""A project's labels -> the files of a fit, and the dataset version that says what it saw (arrow 6).

What cannot be brought is left out and named: one lost object must not cost a training. Does not fit.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from services.adapters.broker.patience import Patience
from services.adapters.clock import Clock
from services.domain.errors import Rejected
from services.domain.label import Verdict
from services.trainer.dataset_versions import (
    LEFT_OUT,
    NEAR_DUPLICATE,
    DatasetVersion,
    DatasetVersions,
    Finding,
    Snapshot,
    snapshot_of,
)
from services.trainer.datasets import DatasetEntry, Datasets
from services.trainer.fit_process import FitResult, Tell, TrainingImage
from services.trainer.training_progress import FETCHING

# They stand in the manifest and on the card; the rest is with the dataset version.
_NOTES = 10


@dataclass(frozen=True, slots=True)
class FitInput:
    """What a fit is given.

    Attributes:
        images: in the job's folder.
        seen: the same, kept for ever.
    """

    images: tuple[TrainingImage, ...]
    seen: DatasetVersion

    @property
    def notes(self) -> tuple[str, ...]:
        """What is to be said of the data: a few sentences, and where the others are."""
        said = [one.sentence for one in self.seen.findings]
        if len(said) > _NOTES:
            said[_NOTES:] = [f"{len(said) - _NOTES} more findings: loupe dataset {self.seen.project}"]
        return tuple(said)


class Bringer:
    """Brings datasets from the object store into folders."""

    def __init__(
        self, datasets: Datasets, versions: DatasetVersions, patience: Patience, clock: Clock
    ) -> None:
        """Wait with `patience` for stores that are away."""
        self._datasets = datasets
        self._versions = versions
        self._patience = patience
        self._clock = clock

    def count(self, project: str) -> tuple[int, int]:
        """Return how many normal and how many anomalous pictures a fit would see."""
        truths = [one.truth for one in self._snapshot(project).entries]
        return truths.count(Verdict.NORMAL), truths.count(Verdict.ANOMALY)

    def bring(self, project: str, folder: Path, tell: Tell) -> FitInput:
        """Write a project's pictures and masks into `folder`, one by one, and keep what they are.

        Raises:
            RetryLater: the trainer is stopping.
        """
        began_at = self._clock.now()
        snapshot = self._snapshot(project)
        images: dict[DatasetEntry, TrainingImage] = {}
        lost: list[Finding] = []
        for number, entry in enumerate(snapshot.entries):
            tell(FETCHING, number / len(snapshot.entries))
            try:
                images[entry] = self._bring_one(entry, folder)
            except Rejected as error:
                lost.append(Finding(LEFT_OUT, f"Entry {entry.entry_id} is left out: {error.message}"))
        brought = Snapshot(tuple(images), (*snapshot.findings, *lost))
        seen = self._patience.call(lambda: self._versions.write(project, brought, began_at))
        return FitInput(tuple(images.values()), seen)

    def note(self, given: FitInput, found: FitResult) -> str:
        """Keep what a fit found out about its data; return where to read of it, empty if all is well."""
        findings = [
            *(Finding(LEFT_OUT, one) for one in found.left_out),
            *(Finding(NEAR_DUPLICATE, one) for one in found.near_duplicates),
        ]
        self._patience.call(lambda: self._versions.add_findings(given.seen, findings))
        if not given.seen.findings and not findings:
            return ""
        return f"Something is to be said of its data: loupe dataset {given.seen.project}"

    def _snapshot(self, project: str) -> Snapshot:
        return snapshot_of(self._patience.call(partial(self._datasets.all_entries, project)))

    def _bring_one(self, entry: DatasetEntry, folder: Path) -> TrainingImage:
        assert entry.truth is not None, "a snapshot has no others"
        image = TrainingImage(str(entry.entry_id), entry.truth, entry.types, {}, entry.split)
        (folder / image.file).write_bytes(self._patience.call(partial(self._datasets.image, entry)))
        masks = {}
        for number, mask in enumerate(entry.masks):
            file = f"{entry.entry_id}.mask{number}.png"
            data = self._patience.call(partial(self._datasets.mask, mask))
            (folder / file).write_bytes(data)
            masks[mask.name] = file
        return replace(image, masks=masks)
