"""Model versions: uploaded whole, registered as candidates, promoted or kept, found again (arrow 6).

A version's row is written after the manifest is in the object store, which itself is written last:
nobody ever sees half a model. Only promoted versions are served; of those the one that was promoted
last, so that promoting an older one again is the way back. Does not fit and does not decide.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, Row, Select, func, select, update

from services.adapters.database import insert_or_ignore, reading, writing
from services.adapters.database.tables import model_versions, projects
from services.adapters.object_store.store import MODELS_BUCKET, ObjectStore
from services.domain.errors import BadRequest, CorruptModel, UnknownProject
from services.domain.model_version import Manifest, ModelAnnouncement, Task, VersionState
from services.domain.project import checked_project_name
from services.vision.runtime import MANIFEST_FILE, verify_folder


@dataclass(frozen=True, slots=True)
class VersionRecord:
    """What the registry knows of a version.

    Attributes:
        metrics: numbers of its manifest.
        evidence: JSON object; `reasons` are plain sentences, `by_hand` says who promoted it.
        decided_at: when it was promoted or kept; None of a candidate and of versions from before there
            were candidates.
        parent: the version that it is a quick update of, empty for a whole fit.
    """

    announcement: ModelAnnouncement
    state: VersionState
    family: str
    data_digest: str
    parent: str
    metrics: Mapping[str, float]
    evidence: Mapping[str, Any]
    decided_at: datetime | None

    @property
    def version(self) -> str:
        """Its name."""
        return self.announcement.version

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why it was promoted or kept; empty of a candidate."""
        return tuple(self.evidence.get("reasons", ()))


def new_version(now: datetime, unique: str) -> str:
    """Return a version name that sorts by time, for example `v20261121-104058-ab12`.

    Args:
        now: aware UTC time.
        unique: letters and digits that keep versions of one second apart.
    """
    return f"v{now:%Y%m%d-%H%M%S}-{unique}"


class Registry:
    """The versions of all projects; the only writer of `model_versions`."""

    def __init__(self, engine: Engine, store: ObjectStore) -> None:
        """Use a migrated database and an object store."""
        self._engine = engine
        self._store = store

    def register(self, folder: Path, manifest: Manifest, training_id: str = "") -> ModelAnnouncement:
        """Upload a model folder, then make it a candidate; doing so twice changes nothing.

        Raises:
            CorruptModel: the folder is not what its manifest says.
            BadRequest: the project's name cannot be one.
            StoreUnavailable: not uploaded, not registered; try again.
            DatabaseUnavailable: uploaded, not registered; try again.
        """
        checked_project_name(manifest.project)
        if verify_folder(folder) != manifest:
            message = f"{folder} holds another manifest than the one to be registered."
            raise CorruptModel(message, folder=str(folder))
        announcement = ModelAnnouncement(
            project=manifest.project,
            version=manifest.version,
            uri=f"s3://{MODELS_BUCKET}/{manifest.project}/{manifest.version}",
            manifest_sha256=_sha256_of(folder / MANIFEST_FILE),
            created_at=manifest.created_at,
            training_id=training_id,
        )
        self._store.upload_folder(folder, announcement.uri)
        with writing(self._engine) as connection:
            ensure_project(connection, manifest.project, manifest.created_at, manifest.task)
            connection.execute(
                insert_or_ignore(connection, model_versions),
                {
                    **asdict(announcement),
                    "metrics": dict(manifest.metrics),
                    "state": VersionState.CANDIDATE.value,
                    "data_digest": manifest.data_digest,
                    "family": manifest.family,
                    "parent": manifest.parent,
                },
            )
        return announcement

    def decide(
        self, project: str, version: str, state: VersionState, evidence: Mapping[str, Any], at: datetime
    ) -> VersionRecord:
        """Note what became of a candidate; return what holds, which is an earlier decision if there was one.

        Raises:
            UnknownProject: there is no such version.
        """
        with writing(self._engine) as connection:
            connection.execute(
                update(model_versions)
                .where(_is(project, version), model_versions.c.state == VersionState.CANDIDATE.value)
                .values(state=state.value, evidence=dict(evidence), decided_at=at)
            )
        return self.record(project, version)

    def promote(
        self, project: str, version: str, *, author: str, reason: str, at: datetime
    ) -> ModelAnnouncement:
        """Promote a version by hand, whatever was decided before; announce it, and it is what serves.

        One that was promoted last stays as it is; announced again, it serves even if whoever promoted it was
        killed before saying so.

        Raises:
            BadRequest: there is no such version, or it has not proved itself.
            UnknownProject: there is no such project, or it has no model yet.
        """
        with writing(self._engine) as connection:
            row = connection.execute(select(model_versions).where(_is(project, version))).first()
            newest = connection.execute(_promoted(project).limit(1)).first()
            if row is not None and (newest is None or newest.version != version):
                _check_proved(row)
                said = {"author": author, "reason": reason, "at": at.isoformat(), "was": row.state}
                by_hand = [*row.evidence.get("by_hand", ()), said]
                values = {
                    "state": VersionState.PROMOTED.value,
                    "evidence": {**row.evidence, "by_hand": by_hand},
                    "decided_at": at,
                }
                connection.execute(update(model_versions).where(_is(project, version)).values(values))
        if row is None:
            raise _no_version(project, version, [one.version for one in self.records(project)])
        return _announcement(row)

    def latest(self, project: str) -> ModelAnnouncement:
        """Return the version of a project that serves: the one promoted last.

        Raises:
            UnknownProject: there is no such project, or it has no promoted version.
        """
        with reading(self._engine) as connection:
            row = connection.execute(_promoted(project).limit(1)).first()
        if row is None:
            raise self._unknown(project)
        return _announcement(row)

    def records(self, project: str) -> tuple[VersionRecord, ...]:
        """Return all versions of a project in any state, oldest first; at least one.

        Raises:
            UnknownProject: there is no such project, or it has no version.
        """
        query = (
            select(model_versions)
            .where(model_versions.c.project == project)
            .order_by(model_versions.c.created_at, model_versions.c.version)
        )
        with reading(self._engine) as connection:
            found = tuple(_record(row) for row in connection.execute(query))
        if not found:
            raise self._unknown(project)
        return found

    def record(self, project: str, version: str) -> VersionRecord:
        """Return what is known of one version.

        Raises:
            UnknownProject: there is no such version.
        """
        with reading(self._engine) as connection:
            row = connection.execute(select(model_versions).where(_is(project, version))).first()
        if row is None:
            message = f"There is no version {version} of {project}."
            raise UnknownProject(message, project=project, version=version)
        return _record(row)

    def projects(self) -> tuple[str, ...]:
        """Return the names of all projects, with or without a model, sorted."""
        with reading(self._engine) as connection:
            return tuple(connection.scalars(select(projects.c.name).order_by(projects.c.name)))

    def of_training(self, training_id: str) -> ModelAnnouncement | None:
        """Return the version that a training request led to, in any state; None before it did."""
        query = select(model_versions).where(model_versions.c.training_id == training_id)
        with reading(self._engine) as connection:
            row = connection.execute(query).first()
        return None if row is None else _announcement(row)

    def _unknown(self, project: str) -> UnknownProject:
        query = select(model_versions.c.version).where(model_versions.c.project == project).limit(1)
        with reading(self._engine) as connection:
            has_versions = connection.execute(query).first() is not None
        return _why_unknown(project, self.projects(), has_versions=has_versions)

    def fetch(self, announcement: ModelAnnouncement, folder: Path) -> Manifest:
        """Bring a version to `folder`, verified, whole or not at all; present already: only verify.

        Raises:
            CorruptModel: what is stored is not what was announced.
            UnknownObject: nothing is stored there.
            StoreUnavailable: the store did not answer.
        """
        if not folder.is_dir():
            folder.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as parent:
                arriving = Path(parent, "version")
                self._store.download_folder(announcement.uri, arriving)
                _verify(announcement, arriving)
                # Another process may have been faster; both brought the same.
                if not folder.is_dir():
                    shutil.move(arriving, folder)
        return _verify(announcement, folder)


def ensure_project(
    connection: Connection, name: str, at: datetime, task: Task = Task.ANOMALY_DETECTION
) -> None:
    """Add a project unless it is there."""
    row = {"name": name, "task": task.value, "created_at": at}
    connection.execute(insert_or_ignore(connection, projects), row)


def _verify(announcement: ModelAnnouncement, folder: Path) -> Manifest:
    manifest = verify_folder(folder)
    if _sha256_of(folder / MANIFEST_FILE) != announcement.manifest_sha256:
        message = f"The manifest in {folder} is not the one announced for {announcement.version}."
        raise CorruptModel(message, folder=str(folder), version=announcement.version)
    return manifest


def _sha256_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _is(project: str, version: str) -> Any:
    return (model_versions.c.project == project) & (model_versions.c.version == version)


def _promoted(project: str) -> Select[Any]:
    """Select the promoted versions, the one that serves first.

    Versions from before there were candidates have no time of decision; they served from their making on.
    """
    since = func.coalesce(model_versions.c.decided_at, model_versions.c.created_at)
    return (
        select(model_versions)
        .where(model_versions.c.project == project, model_versions.c.state == VersionState.PROMOTED.value)
        .order_by(since.desc(), model_versions.c.created_at.desc(), model_versions.c.version.desc())
    )


def _why_unknown(project: str, known: Sequence[str], *, has_versions: bool) -> UnknownProject:
    if has_versions:
        message = (
            f"No version of {project} was promoted yet. What was fitted and why it does not serve: "
            f"loupe models {project}"
        )
    elif project in known:
        message = f"Project {project} has no model yet. Fit one: loupe fit DIR --project {project}"
    elif known:
        message = f"There is no project {project}. Known are: {', '.join(known)}."
    else:
        message = (
            f"There is no project {project}, and no other yet. Make one: loupe fit DIR --project {project}"
        )
    return UnknownProject(message, project=project, known=tuple(known))


def _check_proved(row: Row[Any]) -> None:
    """Refuse what no replica would load.

    Raises:
        BadRequest: a candidate that nobody has looked at yet, or one that failed its golden check.
    """
    if row.state == VersionState.CANDIDATE.value:
        message = f"Version {row.version} of {row.project} is a candidate that has not been proved yet."
        raise BadRequest(message, version=row.version)
    contender = row.evidence.get("candidate")
    if row.state == VersionState.KEPT.value and not (contender and contender["is_proved"]):
        message = f"Version {row.version} of {row.project} cannot serve. {' '.join(row.evidence['reasons'])}"
        raise BadRequest(message, version=row.version)


def _no_version(project: str, version: str, known: Sequence[str]) -> BadRequest:
    message = f"There is no version {version} of {project}. There are: {', '.join(known)}."
    return BadRequest(message, project=project, version=version)


def _announcement(row: Row[Any]) -> ModelAnnouncement:
    return ModelAnnouncement(
        project=row.project,
        version=row.version,
        uri=row.uri,
        manifest_sha256=row.manifest_sha256,
        created_at=row.created_at,
        training_id=row.training_id,
    )


def _record(row: Row[Any]) -> VersionRecord:
    return VersionRecord(
        announcement=_announcement(row),
        state=VersionState(row.state),
        family=row.family,
        data_digest=row.data_digest,
        parent=row.parent,
        metrics=row.metrics,
        evidence=row.evidence,
        decided_at=row.decided_at,
    )
