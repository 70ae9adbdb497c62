"""What a training sees of a project's labels, and that it is kept for ever under its digest (arrow 6).

The entries lie as JSON lines in the object store under their own SHA-256, so the same data is the same
version however often it is read; a row tells counts and what was found wrong. Opens no picture.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Engine, Row, select, update

from services.adapters.database import insert_or_ignore, reading, writing
from services.adapters.database.tables import dataset_versions, model_versions
from services.adapters.object_store.store import DATASETS_BUCKET, ObjectStore
from services.domain.frame import ImageReference
from services.domain.label import Verdict
from services.trainer.datasets import DatasetEntry

CONTRADICTION, DUPLICATE, NEAR_DUPLICATE, LEFT_OUT = (
    "contradiction", "duplicate", "near-duplicate", "left-out",
)  # fmt: skip
# A camera that stands still sends the same picture thousands of times; a sentence names a few.
_NAMED = 5
# Kinds that only a training finds: it opens the pictures.
BY_LOOKING = (NEAR_DUPLICATE, LEFT_OUT)


@dataclass(frozen=True, slots=True)
class Finding:
    """Something about the data that a person should know.

    Attributes:
        kind: one of the constants above.
        sentence: what was found and what was done about it.
    """

    kind: str
    sentence: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a training reads now: one entry per picture whose truth is known, in order of their ids."""

    entries: tuple[DatasetEntry, ...]
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True)
class DatasetVersion:
    """A dataset as a training saw it.

    Attributes:
        digest: SHA-256 of its JSON lines; what a model's manifest names.
        counts: `verdicts`, `types` and `splits` with a number each, and `masks`.
        seen_at: when a training last read it.
        model_versions: those that were fitted from it, oldest first.
    """

    project: str
    digest: str
    uri: str
    images: int
    counts: Mapping[str, Any]
    findings: tuple[Finding, ...]
    created_at: datetime
    seen_at: datetime
    model_versions: tuple[str, ...] = ()


def snapshot_of(entries: Iterable[DatasetEntry]) -> Snapshot:
    """Choose what a training reads.

    Of labels of one file the latest counts. Equal pixels in several files count once where their labels
    agree; where they contradict each other all are left out, since nobody knows which person is right.

    Args:
        entries: in the order of their labels' times, as `Datasets.all_entries` gives them.
    """
    findings: list[Finding] = []
    by_file: dict[str, list[DatasetEntry]] = {}
    for entry in entries:
        if entry.truth is not None:
            by_file.setdefault(entry.image.sha256, []).append(entry)
    by_pixels: dict[str, list[DatasetEntry]] = {}
    for sha256, said in by_file.items():
        if len({one.truth for one in said}) > 1:
            findings.append(_overruled(said))
        by_pixels.setdefault(said[-1].pixels_sha256 or sha256, []).append(said[-1])
    kept: list[DatasetEntry] = []
    for same in by_pixels.values():
        same.sort(key=lambda one: (one.labelled_at, str(one.entry_id)))
        is_contradicted = len({one.truth for one in same}) > 1
        if len(same) > 1:
            findings.append(_contradiction(same) if is_contradicted else _duplicate(same))
        if not is_contradicted:
            kept.append(same[-1])
    return Snapshot(tuple(sorted(kept, key=lambda one: str(one.entry_id))), tuple(findings))


def document_of(entries: Sequence[DatasetEntry]) -> bytes:
    """Return the JSON lines of entries; equal data, equal bytes.

    Who labelled when is not in it: saying the same again does not make other data.
    """
    return b"".join(
        json.dumps(_line_of(entry), sort_keys=True, separators=(",", ":")).encode() + b"\n"
        for entry in entries
    )


class DatasetVersions:
    """The only writer of `dataset_versions`."""

    def __init__(self, engine: Engine, store: ObjectStore) -> None:
        """Use a migrated database and an object store."""
        self._engine = engine
        self._store = store

    def write(self, project: str, snapshot: Snapshot, at: datetime) -> DatasetVersion:
        """Keep what a training is about to see; known data only gets the new time and findings.

        Args:
            project: whose.
            snapshot: what it reads.
            at: aware UTC time before the entries were read; labels stored later are new ones.

        Raises:
            StoreUnavailable: nothing was kept; try again.
            DatabaseUnavailable: no row was written; try again.
        """
        kept = self._store.put_image(DATASETS_BUCKET, document_of(snapshot.entries))
        told = {"findings": [asdict(one) for one in snapshot.findings], "seen_at": at}
        row = {
            "project": project,
            "digest": kept.sha256,
            "uri": kept.uri,
            "images": len(snapshot.entries),
            "counts": counts_of(snapshot.entries),
            "created_at": at,
            **told,
        }
        with writing(self._engine) as connection:
            connection.execute(insert_or_ignore(connection, dataset_versions), row)
            connection.execute(update(dataset_versions).where(*_is(project, kept.sha256)).values(told))
            found = connection.execute(select(dataset_versions).where(*_is(project, kept.sha256))).one()
        return _version(found, ())

    def add_findings(self, version: DatasetVersion, findings: Sequence[Finding]) -> None:
        """Add what was found out while its pictures were looked at."""
        if not findings:
            return
        both = [asdict(one) for one in (*version.findings, *findings)]
        with writing(self._engine) as connection:
            connection.execute(
                update(dataset_versions).where(*_is(version.project, version.digest)).values(findings=both)
            )

    def of_project(self, project: str) -> tuple[DatasetVersion, ...]:
        """Return a project's versions with the models fitted from them, in the order they were last read."""
        query = (
            select(dataset_versions)
            .where(dataset_versions.c.project == project)
            .order_by(dataset_versions.c.seen_at, dataset_versions.c.digest)
        )
        fitted = (
            select(model_versions.c.data_digest, model_versions.c.version)
            .where(model_versions.c.project == project)
            .order_by(model_versions.c.created_at, model_versions.c.version)
        )
        with reading(self._engine) as connection:
            models: dict[str, list[str]] = {}
            for digest, version in connection.execute(fitted):
                models.setdefault(digest, []).append(version)
            return tuple(_version(row, models.get(row.digest, ())) for row in connection.execute(query))

    def lines(self, version: DatasetVersion) -> tuple[dict[str, Any], ...]:
        """Return a version's entries as JSON objects, verified.

        Raises:
            HashMismatch: what is stored is not this version.
            UnknownObject: it is gone.
            StoreUnavailable: the store did not answer.
        """
        # The length is only told, never checked.
        document = self._store.get_image(ImageReference(version.uri, version.digest, 0))
        return tuple(json.loads(line) for line in document.splitlines())


def counts_of(entries: Sequence[DatasetEntry]) -> dict[str, Any]:
    """Return how many images have which verdict, type and split (`any`: as a fit splits), and the masks."""
    verdicts = Counter(one.truth for one in entries)
    return {
        "verdicts": {verdict.value: verdicts[verdict] for verdict in Verdict if verdicts[verdict]},
        "types": dict(sorted(Counter(name for one in entries for name in one.types).items())),
        "splits": dict(sorted(Counter(one.split.value if one.split else "any" for one in entries).items())),
        "masks": sum(len(one.masks) for one in entries),
    }


def _line_of(entry: DatasetEntry) -> dict[str, Any]:
    return {
        "entry_id": str(entry.entry_id),
        "image": {"sha256": entry.image.sha256, "uri": entry.image.uri},
        "verdict": entry.truth,
        "types": entry.types,
        "masks": [
            {"name": one.name, "sha256": one.image.sha256, "uri": one.image.uri} for one in entry.masks
        ],
        "boxes": [asdict(one) for one in entry.boxes],
        "split": entry.split,
        "origin": entry.origin,
    }


def _overruled(said: Sequence[DatasetEntry]) -> Finding:
    earlier, last = said[-2], said[-1]
    return Finding(
        CONTRADICTION,
        f"Picture {last.image.sha256[:12]} was called {earlier.truth} and then {last.truth} "
        f"({last.labelled_at:%Y-%m-%d %H:%M}); the later label counts.",
    )


def _contradiction(same: Sequence[DatasetEntry]) -> Finding:
    counts = Counter(one.truth for one in same)
    rarest_last = sorted(same, key=lambda one: -counts[one.truth])
    named = _some([f"{one.entry_id} ({one.truth})" for one in rarest_last])
    return Finding(
        CONTRADICTION,
        f"The same pixels are labelled differently: {named}. All are left out until the labels agree.",
    )


def _duplicate(same: Sequence[DatasetEntry]) -> Finding:
    named = _some([str(one.entry_id) for one in same])
    splits = {one.split for one in same}
    where = " One is for training and one for the test." if len(splits - {None}) > 1 else ""
    return Finding(DUPLICATE, f"The same pixels came as {named}; the last counts.{where}")


def _some(names: Sequence[str]) -> str:
    """Return the last of some names."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[-_NAMED:]) + more


def _is(project: str, digest: str) -> tuple[Any, Any]:
    return dataset_versions.c.project == project, dataset_versions.c.digest == digest


def _version(row: Row[Any], models: Sequence[str]) -> DatasetVersion:
    return DatasetVersion(
        project=row.project,
        digest=row.digest,
        uri=row.uri,
        images=row.images,
        counts=row.counts,
        findings=tuple(Finding(**one) for one in row.findings),
        created_at=row.created_at,
        seen_at=row.seen_at,
        model_versions=tuple(models),
    )
