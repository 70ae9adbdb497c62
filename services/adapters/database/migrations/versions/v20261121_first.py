"""First shape of the database."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "20261121_first"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    _create_inspections()
    _create_ends()
    _create_training()
    _create_hosting()


def downgrade() -> None:
    """Undo."""
    for name in (
        "inspections",
        "frame_ends",
        "quarantine",
        "ledger_captured",
        "ledger_shed",
        "projects",
        "model_versions",
        "training_jobs",
        "dataset_entries",
        "hostings",
        "routes",
    ):
        op.drop_table(name)


def _create_inspections() -> None:
    """What the results service judged."""
    op.create_table(
        "inspections",
        sa.Column("inspection_id", sa.String(length=36), nullable=False),
        sa.Column("frame_id", sa.String(length=36), nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("run", sa.String(length=64), nullable=False),
        sa.Column("camera", sa.String(length=1024), nullable=False),
        sa.Column("epoch", sa.String(length=1024), nullable=True),
        sa.Column("sequence", sa.BigInteger(), nullable=True),
        sa.Column("project", sa.String(length=128), nullable=False),
        sa.Column("model_version", sa.String(length=128), nullable=False),
        sa.Column("subject", sa.String(length=1024), nullable=False),
        sa.Column("part_id", sa.String(length=1024), nullable=True),
        sa.Column("lot_id", sa.String(length=1024), nullable=True),
        sa.Column("is_anomalous", sa.Boolean(), nullable=False),
        sa.Column("is_uncertain", sa.Boolean(), nullable=False),
        sa.Column("confidence", sa.Float(), nullable=False),
        sa.Column("score", sa.Float(), nullable=False),
        sa.Column("threshold", sa.Float(), nullable=False),
        sa.Column("regions", sa.JSON(), nullable=False),
        sa.Column("image_uri", sa.String(length=1024), nullable=True),
        sa.Column("image_sha256", sa.String(length=64), nullable=True),
        sa.Column("image_bytes", sa.BigInteger(), nullable=True),
        sa.Column("width_px", sa.Integer(), nullable=False),
        sa.Column("height_px", sa.Integer(), nullable=False),
        sa.Column("stage_ms", sa.JSON(), nullable=False),
        sa.Column("unit", sa.String(length=128), nullable=False),
        sa.Column("captured_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("judged_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("stored_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("latency_ms", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("inspection_id", name=op.f("pk_inspections")),
    )
    op.create_index(op.f("ix_inspections_camera"), "inspections", ["camera", "captured_at"])
    op.create_index(op.f("ix_inspections_frame_id"), "inspections", ["frame_id"])
    op.create_index(op.f("ix_inspections_project"), "inspections", ["project", "judged_at"])


def _create_ends() -> None:
    """How frames ended, and what was declared of them."""
    op.create_table(
        "frame_ends",
        sa.Column("topic", sa.String(length=128), nullable=False),
        sa.Column("partition", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("offset", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("frame_id", sa.String(length=36), nullable=False),
        sa.Column("camera", sa.String(length=1024), nullable=False),
        sa.Column("end", sa.String(length=16), nullable=False),
        sa.PrimaryKeyConstraint("topic", "partition", "offset", name=op.f("pk_frame_ends")),
    )
    op.create_table(
        "quarantine",
        sa.Column("frame_id", sa.String(length=36), nullable=False),
        sa.Column("camera", sa.String(length=1024), nullable=False),
        sa.Column("topic", sa.String(length=128), nullable=False),
        sa.Column("partition", sa.Integer(), nullable=False),
        sa.Column("offset", sa.BigInteger(), nullable=False),
        sa.Column("cause", sa.String(length=64), nullable=False),
        sa.Column("reason", sa.String(length=1024), nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("failed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("letter_partition", sa.Integer(), nullable=False),
        sa.Column("letter_offset", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("frame_id", name=op.f("pk_quarantine")),
    )
    op.create_index(op.f("ix_quarantine_camera"), "quarantine", ["camera"])
    op.create_table(
        "ledger_captured",
        sa.Column("entry_id", sa.String(length=36), nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("camera", sa.String(length=1024), nullable=False),
        sa.Column("epoch", sa.String(length=1024), nullable=False),
        sa.Column("first", sa.BigInteger(), nullable=False),
        sa.Column("last", sa.BigInteger(), nullable=False),
        sa.Column("declared_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("is_ended", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("entry_id", "number", name=op.f("pk_ledger_captured")),
    )
    op.create_index(op.f("ix_ledger_captured_camera"), "ledger_captured", ["camera"])
    op.create_index(op.f("ix_ledger_captured_is_ended"), "ledger_captured", ["is_ended"])
    op.create_table(
        "ledger_shed",
        sa.Column("frame_id", sa.String(length=36), nullable=False),
        sa.Column("camera", sa.String(length=1024), nullable=False),
        sa.Column("reason", sa.String(length=64), nullable=False),
        sa.Column("declared_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("frame_id", name=op.f("pk_ledger_shed")),
    )
    op.create_index(op.f("ix_ledger_shed_camera"), "ledger_shed", ["camera"])


def _create_training() -> None:
    """Projects, versions, jobs and labels of the trainer."""
    op.create_table(
        "projects",
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("task", sa.String(length=64), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_projects")),
    )
    op.create_table(
        "model_versions",
        sa.Column("project", sa.String(length=128), nullable=False),
        sa.Column("version", sa.String(length=128), nullable=False),
        sa.Column("uri", sa.String(length=1024), nullable=False),
        sa.Column("manifest_sha256", sa.String(length=64), nullable=False),
        sa.Column("training_id", sa.String(length=256), nullable=False),
        sa.Column("metrics", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("project", "version", name=op.f("pk_model_versions")),
    )
    op.create_table(
        "training_jobs",
        sa.Column("training_id", sa.String(length=256), nullable=False),
        sa.Column("project", sa.String(length=128), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("message", sa.String(length=1024), nullable=False),
        sa.Column("version", sa.String(length=128), nullable=True),
        sa.Column("requested_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("training_id", name=op.f("pk_training_jobs")),
    )
    op.create_index(op.f("ix_training_jobs_project"), "training_jobs", ["project"])
    op.create_table(
        "dataset_entries",
        sa.Column("entry_id", sa.String(length=36), nullable=False),
        sa.Column("project", sa.String(length=128), nullable=False),
        sa.Column("frame_id", sa.String(length=36), nullable=True),
        sa.Column("image_uri", sa.String(length=1024), nullable=False),
        sa.Column("image_sha256", sa.String(length=64), nullable=False),
        sa.Column("image_bytes", sa.BigInteger(), nullable=False),
        sa.Column("verdict", sa.String(length=16), nullable=True),
        sa.Column("classes", sa.JSON(), nullable=False),
        sa.Column("boxes", sa.JSON(), nullable=False),
        sa.Column("masks", sa.JSON(), nullable=False),
        sa.Column("author", sa.String(length=256), nullable=False),
        sa.Column("labelled_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("entry_id", name=op.f("pk_dataset_entries")),
    )
    op.create_index(op.f("ix_dataset_entries_project"), "dataset_entries", ["project"])


def _create_hosting() -> None:
    """What is to be served, and for which cameras."""
    op.create_table(
        "hostings",
        sa.Column("project", sa.String(length=128), nullable=False),
        sa.Column("version", sa.String(length=128), nullable=False),
        sa.Column("uri", sa.String(length=1024), nullable=False),
        sa.Column("min_units", sa.Integer(), nullable=False),
        sa.Column("max_units", sa.Integer(), nullable=False),
        sa.Column("status", sa.String(length=32), nullable=False),
        sa.Column("message", sa.String(length=1024), nullable=False),
        sa.Column("changed_by", sa.String(length=256), nullable=False),
        sa.Column("changed_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("project", name=op.f("pk_hostings")),
    )
    op.create_table(
        "routes",
        sa.Column("camera_pattern", sa.String(length=256), nullable=False),
        sa.Column("project", sa.String(length=128), nullable=False),
        sa.Column("mode", sa.String(length=16), nullable=False),
        sa.Column("archive", sa.String(length=16), nullable=False),
        sa.Column("deadline_s", sa.Float(), nullable=True),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("camera_pattern", "project", "mode", name=op.f("pk_routes")),
    )
