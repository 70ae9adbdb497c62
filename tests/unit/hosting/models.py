"""Announcements of models that nobody made, and the registry's rows for them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from sqlalchemy import Engine, insert

from services.adapters.database import writing
from services.adapters.database.tables import model_versions
from services.domain.model_version import ModelAnnouncement

AT = datetime(2026, 1, 1, tzinfo=UTC)


def announcement(project: str, version: str, *, age_s: float = 0) -> ModelAnnouncement:
    uri = f"s3://loupe-models/{project}/{version}"
    return ModelAnnouncement(project, version, uri, "0" * 64, AT - timedelta(seconds=age_s))


def registered(engine: Engine, project: str, version: str, *, age_s: float = 0) -> ModelAnnouncement:
    said = announcement(project, version, age_s=age_s)
    row = {
        "project": project, "version": version, "uri": said.uri, "manifest_sha256": said.manifest_sha256,
        "training_id": "", "metrics": {}, "created_at": said.created_at,
    }  # fmt: skip
    with writing(engine) as connection:
        connection.execute(insert(model_versions).values(row))
    return said
