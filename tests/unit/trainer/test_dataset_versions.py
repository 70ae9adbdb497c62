"""What a training sees: chosen, content-addressed, counted, and what was wrong is named."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import Engine

from services.adapters.database import writing
from services.adapters.database.tables import model_versions
from services.adapters.object_store import ObjectStore
from services.adapters.object_store.store import DATASETS_BUCKET, folder_store
from services.domain.frame import ImageReference
from services.domain.label import Box, Mask, Origin, Split, Verdict
from services.trainer.dataset_versions import DatasetVersions, Finding, Snapshot, document_of, snapshot_of
from services.trainer.datasets import DatasetEntry
from services.trainer.fit_input import FitInput

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)


def entry(
    number: int,
    verdict: Verdict | None = Verdict.NORMAL,
    *,
    file: int | None = None,
    pixels: int | None = None,
    age_s: float = 0,
) -> DatasetEntry:
    """Return an entry; `file` and `pixels` say which others show the same."""
    file = number if file is None else file
    sha256 = f"{file:064x}"
    return DatasetEntry(
        UUID(int=number),
        ImageReference(f"s3://{DATASETS_BUCKET}/sha256/{sha256}", sha256, 10),
        verdict,
        AT - timedelta(seconds=age_s),
        f"{file if pixels is None else pixels:064x}",
    )


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return folder_store(tmp_path / "s3")


@pytest.fixture
def versions(engine: Engine, store: ObjectStore) -> DatasetVersions:
    return DatasetVersions(engine, store)


def test_of_labels_of_one_file_the_later_counts_and_a_contradiction_is_named() -> None:
    seen = snapshot_of([entry(1, Verdict.NORMAL, file=7, age_s=9), entry(2, Verdict.ANOMALY, file=7)])
    assert [one.entry_id.int for one in seen.entries] == [2]
    (found,) = seen.findings
    assert found.kind == "contradiction"
    assert "was called normal and then anomaly (2026-03-01 12:00); the later label counts" in found.sentence


def test_equal_pixels_with_different_verdicts_are_left_out_and_named() -> None:
    seen = snapshot_of([entry(1), entry(2, Verdict.NORMAL, pixels=9), entry(3, Verdict.ANOMALY, pixels=9)])
    assert [one.entry_id.int for one in seen.entries] == [1]
    (found,) = seen.findings
    assert found.kind == "contradiction"
    assert f"{UUID(int=2)} (normal), {UUID(int=3)} (anomaly)" in found.sentence


def test_equal_pixels_with_equal_verdicts_count_once() -> None:
    train, test = (
        replace(entry(2, pixels=9), split=Split.TRAIN),
        replace(entry(3, pixels=9), split=Split.TEST),
    )
    seen = snapshot_of([entry(1), train, test])
    assert [one.entry_id.int for one in seen.entries] == [1, 3]
    (found,) = seen.findings
    assert (found.kind, found.sentence.endswith("One is for training and one for the test.")) == (
        "duplicate", True,
    )  # fmt: skip


def test_a_picture_that_came_a_thousand_times_is_told_in_a_sentence() -> None:
    many = [replace(entry(number, pixels=9), labelled_at=AT) for number in range(1, 1001)]
    (found,) = snapshot_of(many).findings
    assert f"{UUID(int=1000)} and 995 more; the last counts" in found.sentence
    odd = entry(2000, Verdict.ANOMALY, pixels=9, age_s=9)
    (found,) = snapshot_of([odd, *many]).findings
    assert f"{odd.entry_id} (anomaly) and 996 more" in found.sentence


def test_a_few_findings_go_with_the_model_and_the_rest_stays_with_the_data(versions: DatasetVersions) -> None:
    findings = tuple(Finding("left-out", f"Entry {number} is left out.") for number in range(30))
    given = FitInput((), versions.write("plates", Snapshot((), findings), AT))
    assert given.notes[9:] == ("Entry 9 is left out.", "20 more findings: loupe dataset plates")


def test_pictures_that_cannot_be_decoded_are_not_taken_for_equal() -> None:
    broken = [replace(entry(number), pixels_sha256=None) for number in (1, 2)]
    assert len(snapshot_of(broken).entries) == 2


def test_what_says_nothing_of_normal_or_anomaly_is_not_read() -> None:
    drawn = replace(entry(2, None), types=("dent",))
    assert [one.entry_id.int for one in snapshot_of([entry(1, None), drawn]).entries] == [2]


def test_the_same_data_is_the_same_version_however_it_was_said(
    versions: DatasetVersions, store: ObjectStore
) -> None:
    first = versions.write("plates", snapshot_of([entry(1), entry(2)]), AT)
    later = AT + timedelta(hours=1)
    again = versions.write("plates", snapshot_of([entry(2, age_s=5), entry(1)]), later)
    assert (again.digest, again.created_at, again.seen_at) == (first.digest, AT, later)
    assert len(store.list(f"s3://{DATASETS_BUCKET}/")) == 1
    other = versions.write("plates", snapshot_of([entry(1)]), later + timedelta(hours=1))
    assert [one.digest for one in versions.of_project("plates")] == [first.digest, other.digest]
    assert versions.of_project("caps") == ()


@pytest.mark.parametrize(
    "change",
    [
        {"verdict": Verdict.ANOMALY},
        {"types": ("dent",)},
        {"masks": (Mask("dent", ImageReference("s3://b/m", "0" * 64, 1)),)},
        {"boxes": (Box(0, 0, 1, 1, "dent"),)},
        {"split": Split.TEST},
        {"origin": Origin.REVIEW},
        {"image": ImageReference("s3://b/i", "1" * 64, 1)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_whatever_a_label_says_is_in_the_digest(change: dict[str, object]) -> None:
    assert document_of([entry(1)]) != document_of([replace(entry(1), **change)])  # type: ignore[arg-type]


def test_a_version_tells_its_entries_counts_and_models(versions: DatasetVersions, engine: Engine) -> None:
    mask = Mask("dent", ImageReference("s3://b/m", "0" * 64, 1))
    bad = replace(entry(2, Verdict.ANOMALY), types=("dent", "scratch"), masks=(mask,), split=Split.TEST)
    version = versions.write("plates", snapshot_of([entry(1), bad]), AT)
    assert version.counts == {
        "verdicts": {"normal": 1, "anomaly": 1},
        "types": {"dent": 1, "scratch": 1},
        "splits": {"any": 1, "test": 1},
        "masks": 1,
    }
    assert [(line["verdict"], line["types"]) for line in versions.lines(version)] == [
        ("normal", []), ("anomaly", ["dent", "scratch"]),
    ]  # fmt: skip
    assert version.model_versions == ()
    fitted = {
        "project": "plates", "version": "v1", "uri": "s3://m/v1", "manifest_sha256": "0" * 64,
        "training_id": "t1", "metrics": {}, "created_at": AT, "data_digest": version.digest,
    }  # fmt: skip
    with writing(engine) as connection:
        connection.execute(model_versions.insert(), fitted)
    assert versions.of_project("plates")[0].model_versions == ("v1",)


def test_what_a_fit_finds_out_is_added(versions: DatasetVersions) -> None:
    version = versions.write("plates", snapshot_of([entry(1, pixels=9), entry(2, pixels=9)]), AT)
    versions.add_findings(version, [])
    versions.add_findings(version, [Finding("near-duplicate", "1 and 3 show one object.")])
    (found,) = versions.of_project("plates")
    assert [one.kind for one in found.findings] == ["duplicate", "near-duplicate"]
