"""`loupe label` on a real broker and object store, to the dataset that a training reads."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import Engine
from typer.testing import CliRunner

from services.adapters.broker.reader import KafkaTopicReader
from services.adapters.database import migrate, open_engine
from services.adapters.metrics import Metrics
from services.adapters.object_store.store import FRAMES_BUCKET, ObjectStore, s3_store
from services.cli.label import login_name
from services.cli.main import app
from services.domain.label import Verdict
from services.domain.topics import LABELS
from services.trainer.datasets import Datasets, count_labels
from services.trainer.pipeline import LabelStep
from tests.servers import S3Access
from tests.unit.trainer.pictures import picture
from tests.unit.trainer.test_datasets import FRAME, judged
from tests.unit.trainer.test_labelling import mask

pytestmark = pytest.mark.real
runner = CliRunner()


class Desk:
    """A person's shell, and the trainer's side of the topic."""

    def __init__(self, bootstrap: str, s3: S3Access, engine: Engine) -> None:
        self.project = f"plates-{uuid4().hex[:8]}"
        self.engine = engine
        self.store: ObjectStore = s3_store(s3.endpoint, s3.key, s3.secret, s3.region)
        self.datasets = Datasets(engine, self.store)
        self.reader = KafkaTopicReader(bootstrap)

    def label(self, *arguments: str) -> dict[str, object]:
        done = runner.invoke(app, ["label", *arguments, "--project", self.project, "--json"])
        assert done.exit_code == 0, done.output
        told: dict[str, object] = json.loads(done.stdout)
        return told

    def handle_all(self) -> None:
        """Do what the trainer does with every label of this project, from the beginning."""
        step = LabelStep(self.datasets, Metrics())
        for number, span in self.reader.spans(LABELS.name).items():
            for record in self.reader.records_at(LABELS.name, number, span):
                if record.key == self.project.encode():
                    step.handle(record)


@pytest.fixture
def desk(
    kafka_bootstrap: str, s3_access: S3Access, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Desk]:
    url = f"sqlite:///{tmp_path / 'loupe.db'}"
    migrate(url)
    for name, value in {
        "LOUPE_KAFKA_BOOTSTRAP": kafka_bootstrap,
        "LOUPE_DATABASE_URL": url,
        "AWS_ENDPOINT_URL_S3": s3_access.endpoint,
        "AWS_ACCESS_KEY_ID": s3_access.key,
        "AWS_SECRET_ACCESS_KEY": s3_access.secret,
        "AWS_DEFAULT_REGION": s3_access.region,
    }.items():
        monkeypatch.setenv(name, value)
    desk = Desk(kafka_bootstrap, s3_access, open_engine(url))
    yield desk
    desk.reader.close()


def test_a_folder_becomes_a_dataset_and_twice_is_once(desk: Desk, tmp_path: Path) -> None:
    for name, data in {
        "normal/1.png": picture(1), "normal/2.png": picture(2),
        "anomaly/3.png": picture(3, is_bad=True), "masks/scratch/3.png": mask(),
    }.items():  # fmt: skip
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / name).write_bytes(data)
    for _ in range(2):
        told = desk.label(str(tmp_path / "photos"))
        assert (told["normal"], told["anomaly"], told["masks"], told["refused"]) == (2, 1, 1, [])
        desk.handle_all()
    entries = desk.datasets.entries(desk.project)
    assert sorted(entry.verdict for entry in entries if entry.verdict) == ["anomaly", "normal", "normal"]
    assert {desk.datasets.image(entry) for entry in entries} == {
        picture(1), picture(2), picture(3, is_bad=True),
    }  # fmt: skip
    (counts,) = count_labels(desk.engine, desk.project)
    assert (counts.types["scratch"], counts.masks) == (1, 1)


def test_a_later_verdict_on_the_same_picture_replaces_the_earlier(desk: Desk, tmp_path: Path) -> None:
    photo = tmp_path / "a.png"
    photo.write_bytes(picture(1))
    first = desk.label(str(photo), "normal")
    second = desk.label(str(photo), "anomaly", "--type", "dent", "--author", "ann")
    desk.handle_all()
    (entry,) = desk.datasets.entries(desk.project)
    assert entry.verdict is Verdict.ANOMALY
    (one,), (two,) = first["labels"], second["labels"]  # type: ignore[misc]  # lists of one
    assert one["entry_id"] == two["entry_id"] == str(entry.entry_id)  # type: ignore[has-type]
    assert (one["author"], two["author"]) == (login_name(), "ann")  # type: ignore[has-type]


def test_a_frame_is_labelled_by_its_id_and_outlives_the_archive(desk: Desk) -> None:
    data = picture(uuid4().int % 1000 + 5000)
    kept = desk.store.put_image(FRAMES_BUCKET, data)
    done = runner.invoke(app, ["label", str(FRAME), "normal", "--project", desk.project])
    assert (done.exit_code, "has no pixels to label" in done.output) == (2, True), done.output
    judged(desk.engine, kept)
    told = desk.label(str(FRAME), "normal")
    assert told["normal"] == 1
    desk.store.delete(kept.uri)
    desk.handle_all()
    (entry,) = desk.datasets.entries(desk.project)
    assert desk.datasets.image(entry) == data
