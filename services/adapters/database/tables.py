"""Every table, and the one module that writes it. Times are aware UTC; ids are text UUIDs.

JSON columns hold what is only shown, never searched. Changes need an Alembic revision.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Dialect,
    Float,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    TypeDecorator,
    text,
)


class UtcDateTime(TypeDecorator[datetime]):
    """An aware UTC time; SQLite forgets zones, this puts UTC back."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Store UTC."""
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Return aware UTC."""
        if value is None:
            return None
        found: datetime = value
        return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


metadata = MetaData(
    naming_convention={
        "ix": "ix_%(column_0_label)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# --- written by services.results.store -------------------------------------------------------

inspections = Table(
    "inspections",
    metadata,
    Column("inspection_id", String(36), primary_key=True),
    Column("frame_id", String(36), nullable=False),
    Column("role", String(16), nullable=False),
    Column("run", String(64), nullable=False),
    Column("camera", String(1024), nullable=False),
    Column("epoch", String(1024)),
    Column("sequence", BigInteger),
    Column("project", String(128), nullable=False),
    Column("model_version", String(128), nullable=False),
    Column("subject", String(1024), nullable=False),
    Column("part_id", String(1024)),
    Column("lot_id", String(1024)),
    Column("is_anomalous", Boolean, nullable=False),
    Column("is_uncertain", Boolean, nullable=False),
    Column("confidence", Float, nullable=False),
    Column("score", Float, nullable=False),
    Column("threshold", Float, nullable=False),
    Column("regions", JSON, nullable=False),
    Column("image_uri", String(1024)),
    Column("image_sha256", String(64)),
    Column("image_bytes", BigInteger),
    Column("retention", String(16), nullable=False, server_default=""),
    # Set when retention deleted the pixels; the verdict stays.
    Column("image_deleted_at", UtcDateTime),
    Column("original_uri", String(1024)),
    Column("original_sha256", String(64)),
    Column("original_bytes", BigInteger),
    Column("area", String(64)),
    Column("width_px", Integer, nullable=False),
    Column("height_px", Integer, nullable=False),
    Column("stage_ms", JSON, nullable=False),
    Column("unit", String(128), nullable=False),
    Column("picture", JSON, nullable=False, server_default="{}"),
    Column("captured_at", UtcDateTime, nullable=False),
    Column("judged_at", UtcDateTime, nullable=False),
    Column("stored_at", UtcDateTime, nullable=False),
    # Capture to stored verdict, milliseconds; a clock in the future gives 0, never less.
    Column("latency_ms", Float, nullable=False),
    Index(None, "frame_id"),
    Index(None, "image_sha256"),
    Index(None, "original_sha256"),
    Index(None, "camera", "captured_at"),
    Index(None, "project", "judged_at"),
    # What retention looks through: rows whose pixels are there.
    Index(
        "ix_inspections_kept",
        "retention",
        "stored_at",
        sqlite_where=text("image_uri IS NOT NULL AND image_deleted_at IS NULL"),
        postgresql_where=text("image_uri IS NOT NULL AND image_deleted_at IS NULL"),
    ),
    # Which sequences were judged is read from this index alone: the ledger's proof goes through all of them.
    Index("ix_inspections_sequence", "camera", "epoch", "sequence", "role", "run"),
)

# One row per record of loupe.frames that came to an end, doubles included: the proof for foreign
# producers goes by offsets.
frame_ends = Table(
    "frame_ends",
    metadata,
    Column("topic", String(128), primary_key=True),
    Column("partition", Integer, primary_key=True, autoincrement=False),
    Column("offset", BigInteger, primary_key=True, autoincrement=False),
    Column("frame_id", String(36), nullable=False),
    Column("camera", String(1024), nullable=False),
    Column("end", String(16), nullable=False),  # judged | quarantined | shed
)

quarantine = Table(
    "quarantine",
    metadata,
    Column("frame_id", String(36), primary_key=True),
    Column("camera", String(1024), nullable=False, index=True),
    Column("topic", String(128), nullable=False),
    Column("partition", Integer, nullable=False),
    Column("offset", BigInteger, nullable=False),
    Column("cause", String(64), nullable=False),
    Column("reason", String(1024), nullable=False),
    Column("tries", Integer, nullable=False),
    Column("failed_at", UtcDateTime, nullable=False),
    # Pixels that the frame referred to (claim check); kept as long as the dead letter.
    Column("image_uri", String(1024)),
    Column("image_sha256", String(64)),
    Column("original_sha256", String(64)),
    # Where the dead letter itself stands in loupe.frames.dlq.
    Column("letter_partition", Integer, nullable=False),
    Column("letter_offset", BigInteger, nullable=False),
)

ledger_captured = Table(
    "ledger_captured",
    metadata,
    Column("entry_id", String(36), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),  # place of the range in its entry
    Column("camera", String(1024), nullable=False),
    Column("epoch", String(1024), nullable=False),
    Column("first", BigInteger, nullable=False),
    Column("last", BigInteger, nullable=False),
    Column("declared_at", UtcDateTime, nullable=False),
    # Every frame of the range has its end; ends are never taken back, so it need not be looked at again.
    Column("is_ended", Boolean, nullable=False),
    Index("ix_ledger_captured_sequence", "camera", "epoch", "first"),
    Index("ix_ledger_captured_open", "is_ended", "camera", "epoch", "first"),
)

# Ranges that an ingester declared shed; a long one is several rows (`results.store.FRAMES_PER_ROW`).
ledger_shed_ranges = Table(
    "ledger_shed_ranges",
    metadata,
    Column("entry_id", String(36), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),  # place of the range in its entry
    Column("camera", String(1024), nullable=False),
    Column("epoch", String(1024), nullable=False),
    Column("first", BigInteger, nullable=False),
    Column("last", BigInteger, nullable=False),
    Column("reason", String(64), nullable=False),
    Column("declared_at", UtcDateTime, nullable=False),
    Index("ix_ledger_shed_ranges_sequence", "camera", "epoch", "first"),
)

# A frame that the stream shed, by id.
ledger_shed = Table(
    "ledger_shed",
    metadata,
    Column("frame_id", String(36), primary_key=True),
    Column("camera", String(1024), nullable=False, index=True),
    Column("reason", String(64), nullable=False),
    Column("declared_at", UtcDateTime, nullable=False),
)

# --- written by services.trainer: registry, datasets, dataset_versions, jobs, policies ----------------------

projects = Table(
    "projects",
    metadata,
    Column("name", String(128), primary_key=True),
    Column("task", String(64), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
)

model_versions = Table(
    "model_versions",
    metadata,
    Column("project", String(128), primary_key=True),
    Column("version", String(128), primary_key=True),
    Column("uri", String(1024), nullable=False),
    Column("manifest_sha256", String(64), nullable=False),
    Column("training_id", String(256), nullable=False),
    Column("metrics", JSON, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("state", String(16), nullable=False, server_default="promoted"),  # domain VersionState
    # Why it was promoted or kept: numbers of the replay and sentences.
    Column("evidence", JSON, nullable=False, server_default="{}"),
    Column("decided_at", UtcDateTime),
    Column("data_digest", String(64), nullable=False, server_default=""),
    Column("family", String(128), nullable=False, server_default=""),
    Column("parent", String(128), nullable=False, server_default=""),
)

training_jobs = Table(
    "training_jobs",
    metadata,
    Column("training_id", String(256), primary_key=True),
    Column("project", String(128), nullable=False, index=True),
    Column("state", String(16), nullable=False),  # domain JobState
    Column("message", String(1024), nullable=False),
    Column("version", String(128)),
    Column("requested_at", UtcDateTime, nullable=False),
    Column("ended_at", UtcDateTime),
    Column("author", String(256), nullable=False, server_default=""),
    Column("trigger", String(16), nullable=False, server_default="request"),
    Column("options", JSON, nullable=False, server_default="{}"),  # domain FitOptions
    Column("stage", String(32), nullable=False, server_default=""),
    Column("done_ratio", Float, nullable=False, server_default="0"),
    Column("eta_s", Float),
    Column("told_at", UtcDateTime),
    Column("memory_bytes", BigInteger),  # estimated before the start
    Column("cancelled_by", String(256)),
)

# When a project trains by itself. No row: on request only.
training_policies = Table(
    "training_policies",
    metadata,
    Column("project", String(128), primary_key=True),
    Column("after_labels", Integer),  # so many new or changed labels since the last fit
    Column("nightly_at", String(5)),  # HH:MM, UTC
    Column("options", JSON, nullable=False),  # domain FitOptions
    Column("changed_by", String(256), nullable=False),
    Column("changed_at", UtcDateTime, nullable=False),
)

# What a fit saw: the entries lie as JSON lines under their digest in the object store.
dataset_versions = Table(
    "dataset_versions",
    metadata,
    Column("project", String(128), primary_key=True),
    Column("digest", String(64), primary_key=True),
    Column("uri", String(1024), nullable=False),
    Column("images", Integer, nullable=False),
    Column("counts", JSON, nullable=False),  # per verdict, split and anomaly type
    Column("findings", JSON, nullable=False),  # duplicates, near-duplicates, contradictions: sentences
    Column("created_at", UtcDateTime, nullable=False),
    Column("seen_at", UtcDateTime, nullable=False),  # when a training last read it
)

dataset_entries = Table(
    "dataset_entries",
    metadata,
    Column("entry_id", String(36), primary_key=True),
    Column("project", String(128), nullable=False, index=True),
    Column("frame_id", String(36)),
    Column("image_uri", String(1024), nullable=False),
    Column("image_sha256", String(64), nullable=False),
    Column("image_bytes", BigInteger, nullable=False),
    # Of the decoded picture: equal pictures in unequal files. None: it cannot be decoded.
    Column("pixels_sha256", String(64)),
    Column("verdict", String(16)),
    Column("classes", JSON, nullable=False),
    Column("boxes", JSON, nullable=False),
    Column("masks", JSON, nullable=False),
    Column("author", String(256), nullable=False),
    Column("labelled_at", UtcDateTime, nullable=False),
    Column("stored_at", UtcDateTime),  # by our clock; policies count what came since the last training
    Column("split", String(8)),  # domain Split; none: as a fit splits
    Column("origin", String(8), nullable=False, server_default="label"),  # domain Origin
    # Looked for every second, and few.
    Index("ix_dataset_entries_origin", "origin", "project", "stored_at"),
)

# --- written by services.hosting.store and services.hosting.route_store ------------------------

hostings = Table(
    "hostings",
    metadata,
    Column("project", String(128), primary_key=True),
    Column("version", String(128), nullable=False),
    Column("uri", String(1024), nullable=False),
    Column("min_units", Integer, nullable=False),
    Column("max_units", Integer, nullable=False),
    Column("status", String(32), nullable=False),
    Column("message", String(1024), nullable=False),
    Column("changed_by", String(256), nullable=False),
    Column("changed_at", UtcDateTime, nullable=False),
)

routes = Table(
    "routes",
    metadata,
    Column("camera_pattern", String(256), primary_key=True),
    Column("project", String(128), primary_key=True),
    Column("mode", String(16), primary_key=True),
    Column("archive", String(16), nullable=False),
    Column("deadline_s", Float),
    Column("priority", Integer, nullable=False),
    Column("share_ratio", Float, nullable=False, server_default="1"),
    Column("retention", String(16), nullable=False, server_default="standard"),
    Column("changed_by", String(256), nullable=False, server_default=""),
    Column("changed_at", UtcDateTime),
)

# --- written by services.ingest.camera_store ----------------------------------------------------

cameras = Table(
    "cameras",
    metadata,
    Column("camera", String(128), primary_key=True),
    Column("source", String(2048), nullable=False),
    # User and password of the source, or env:NAME; never shown, never logged.
    Column("secret", String(1024)),
    # SHA-256 of the token that pushes to this camera; the token itself is shown once.
    Column("push_token_sha256", String(64)),
    Column("options", JSON, nullable=False),  # the other fields of domain Camera
    Column("is_paused", Boolean, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("changed_by", String(256), nullable=False),
    Column("changed_at", UtcDateTime, nullable=False),
)

# How each camera does, told by the ingester that holds it. A lease that ran out may be taken by another.
camera_states = Table(
    "camera_states",
    metadata,
    Column("camera", String(128), primary_key=True),
    Column("ingester", String(256), nullable=False),
    Column("lease_until", UtcDateTime, nullable=False),
    Column("state", String(32), nullable=False, index=True),  # domain CameraState
    Column("message", String(1024), nullable=False),
    Column("since", UtcDateTime, nullable=False),
    Column("epoch", String(64)),
    Column("captured", BigInteger, nullable=False),
    Column("acknowledged", BigInteger, nullable=False),
    Column("shed", BigInteger, nullable=False),
    Column("spooled", BigInteger, nullable=False),
    Column("fps", Float, nullable=False),
    Column("last_frame_at", UtcDateTime),
    # When the configuration that this is told of was changed: one that ended or is wrong stays so until then.
    Column("configured_at", UtcDateTime),
    Column("told_at", UtcDateTime, nullable=False),
)
