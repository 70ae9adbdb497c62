"""Model versions: uploaded whole, registered, found again (arrow 6).

A version is announced by its row, and the row is written after the manifest is in the object
store, which itself is written last: nobody ever sees half a model. Does not fit.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, Row, select

from services.adapters.database import insert_or_ignore, reading, writing
from services.adapters.database.tables import model_versions, projects
from services.adapters.object_store.store import MODELS_BUCKET, ObjectStore
from services.domain.errors import CorruptModel, UnknownProject
from services.domain.model_version import Manifest, ModelAnnouncement, Task
from services.domain.project import checked_project_name
from services.vision.runtime import MANIFEST_FILE, verify_folder


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
        """Upload a model folder, then make it a version; doing so twice changes nothing.

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
                {**asdict(announcement), "metrics": dict(manifest.metrics)},
            )
        return announcement

    def latest(self, project: str) -> ModelAnnouncement:
        """Return the newest version of a project.

        Raises:
            UnknownProject: there is no such project, or it has no model yet.
        """
        return self.versions(project)[-1]

    def versions(self, project: str) -> tuple[ModelAnnouncement, ...]:
        """Return all versions of a project, oldest first; at least one.

        Raises:
            UnknownProject: there is no such project, or it has no model yet.
        """
        query = (
            select(model_versions)
            .where(model_versions.c.project == project)
            .order_by(model_versions.c.created_at, model_versions.c.version)
        )
        with reading(self._engine) as connection:
            found = tuple(_announcement(row) for row in connection.execute(query))
        if not found:
            raise _unknown(project, self.projects())
        return found

    def projects(self) -> tuple[str, ...]:
        """Return the names of all projects, with or without a model, sorted."""
        with reading(self._engine) as connection:
            return tuple(connection.scalars(select(projects.c.name).order_by(projects.c.name)))

    def of_training(self, training_id: str) -> ModelAnnouncement | None:
        """Return the version that a training request led to, None before it did."""
        query = select(model_versions).where(model_versions.c.training_id == training_id)
        with reading(self._engine) as connection:
            row = connection.execute(query).first()
        return None if row is None else _announcement(row)

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


def _unknown(project: str, known: tuple[str, ...]) -> UnknownProject:
    if project in known:
        message = f"Project {project} has no model yet. Fit one: loupe fit DIR --project {project}"
    elif known:
        message = f"There is no project {project}. Known are: {', '.join(known)}."
    else:
        message = (
            f"There is no project {project}, and no other yet. Make one: loupe fit DIR --project {project}"
        )
    return UnknownProject(message, project=project, known=known)


def _announcement(row: Row[Any]) -> ModelAnnouncement:
    return ModelAnnouncement(
        project=row.project,
        version=row.version,
        uri=row.uri,
        manifest_sha256=row.manifest_sha256,
        created_at=row.created_at,
        training_id=row.training_id,
    )
