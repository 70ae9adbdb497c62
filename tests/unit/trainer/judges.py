"""A project with a tiny model that calls bright pictures anomalous, and people who label some."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from services.adapters.clock import FakeClock
from services.adapters.database import migrate, open_engine
from services.adapters.object_store.store import memory_store
from services.domain.label import Label, Origin, Split, Verdict, entry_id_of
from services.domain.model_version import Manifest, TrainingRequest
from services.domain.promotion import Decision
from services.trainer.datasets import Datasets
from services.trainer.model_folder import CARD_FILE, write_folder
from services.trainer.promotion import Promotion
from services.trainer.proving import InProcessProver, Prover
from services.trainer.registry import Registry
from services.vision.golden import read_golden
from services.vision.runtime import verify_folder
from tests.unit.serve.models import graph, picture, write_version

_ASKED_AT = datetime(2026, 1, 2, tzinfo=UTC)


class Project:
    """The registry, dataset and promotion of `plates`."""

    def __init__(self, folder: Path, url: str = "", prover: Prover | None = None) -> None:
        self.folder = folder
        url = url or f"sqlite:///{folder / 'loupe.db'}"
        migrate(url)
        self.engine, self.store, self.clock = open_engine(url), memory_store(), FakeClock()
        self.registry = Registry(self.engine, self.store)
        self.datasets = Datasets(self.engine, self.store, self.clock)
        self.promotion = Promotion(
            self.registry,
            self.datasets,
            prover or InProcessProver("this is a test."),
            self.clock,
            folder / "work",
        )

    def label(
        self,
        pixels: bytes,
        verdict: Verdict,
        *,
        origin: Origin = Origin.LABEL,
        split: Split | None = None,
    ) -> str:
        """Store a label as the trainer does; return the entry's id."""
        image = self.store.put_image("loupe-frames", pixels)
        entry_id = entry_id_of("plates", frame_id=None, sha256=image.sha256)
        said = Label(entry_id, "plates", self.clock.now(), image, verdict=verdict, origin=origin, split=split)
        self.datasets.store(said)
        self.clock.advance(1)
        return str(entry_id)

    def test_with(self, normal: range, anomalous: range) -> None:
        """Set pictures of these brightnesses aside for testing."""
        for brightness in normal:
            self.label(picture(brightness), Verdict.NORMAL, split=Split.TEST)
        for brightness in anomalous:
            self.label(picture(brightness), Verdict.ANOMALY, split=Split.TEST)

    def fitted(
        self, version: str, *, threshold: float = 5.0, lie: float = 0.0, data_digest: str = ""
    ) -> tuple[Path, Manifest]:
        """Write a version whose score is brightness / 25.5; its golden scores are wrong by `lie`."""
        made = write_version(self.folder / "made", version, lie=lie)
        manifest = verify_folder(made)
        calibration = replace(manifest.calibration, threshold=threshold)
        return write_folder(
            self.folder / "fitted",
            replace(
                manifest,
                created_at=self.clock.now(),
                calibration=calibration,
                data_digest=data_digest or manifest.data_digest,
            ),
            model=graph(),
            golden=read_golden(made),
            card=(made / CARD_FILE).read_text(),
        )

    def consider(
        self, version: str, *, threshold: float = 5.0, lie: float = 0.0, data_digest: str = ""
    ) -> Decision:
        """Fit a version and have it considered."""
        self.clock.advance(60)
        folder, manifest = self.fitted(version, threshold=threshold, lie=lie, data_digest=data_digest)
        return self.promotion.consider(folder, manifest, asked(version))


def asked(training_id: str, *, is_update: bool = False) -> TrainingRequest:
    """Return a request for the project."""
    return TrainingRequest(training_id, "plates", _ASKED_AT, is_update=is_update)
