"""Cameras as data, shed ranges, retention of pixels, routes with shares."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "20261122_line"
down_revision = "20261121_first"
branch_labels = None
depends_on = None

# Table -> its new columns.
_COLUMNS: dict[str, tuple[tuple[str, Any, dict[str, Any]], ...]] = {
    "inspections": (
        ("retention", sa.String(length=16), {"nullable": False, "server_default": ""}),
        ("image_deleted_at", sa.DateTime(timezone=True), {}),
        ("original_uri", sa.String(length=1024), {}),
        ("original_sha256", sa.String(length=64), {}),
        ("original_bytes", sa.BigInteger(), {}),
        ("area", sa.String(length=64), {}),
    ),
    "quarantine": (
        ("image_uri", sa.String(length=1024), {}),
        ("image_sha256", sa.String(length=64), {}),
        ("original_sha256", sa.String(length=64), {}),
    ),
    "routes": (
        ("share_ratio", sa.Float(), {"nullable": False, "server_default": "1"}),
        ("retention", sa.String(length=16), {"nullable": False, "server_default": "standard"}),
        ("changed_by", sa.String(length=256), {"nullable": False, "server_default": ""}),
        ("changed_at", sa.DateTime(timezone=True), {}),
    ),
}
_INDEXES = (("inspections", "image_sha256"), ("inspections", "original_sha256"))
# The ledger's proof walks through the sequences of a camera and epoch, in order, by these alone.
_SEQUENCES = (
    ("ix_inspections_sequence", "inspections", ["camera", "epoch", "sequence", "role", "run"]),
    ("ix_ledger_captured_sequence", "ledger_captured", ["camera", "epoch", "first"]),
    ("ix_ledger_captured_open", "ledger_captured", ["is_ended", "camera", "epoch", "first"]),
)
# What retention looks through: rows whose pixels are there.
_KEPT = "ix_inspections_kept"
_IS_KEPT = sa.text("image_uri IS NOT NULL AND image_deleted_at IS NULL")
# What the longer ones above do as well.
_REPLACED = ("camera", "is_ended")


def upgrade() -> None:
    """Apply."""
    for table, added in _COLUMNS.items():
        for name, kind, how in added:
            op.add_column(table, sa.Column(name, kind, **how))
    for table, column in _INDEXES:
        op.create_index(op.f(f"ix_{table}_{column}"), table, [column])
    for name, table, indexed in _SEQUENCES:
        op.create_index(name, table, indexed)
    columns = ["retention", "stored_at"]
    op.create_index(_KEPT, "inspections", columns, sqlite_where=_IS_KEPT, postgresql_where=_IS_KEPT)
    for column in _REPLACED:
        op.drop_index(op.f(f"ix_ledger_captured_{column}"), "ledger_captured")
    _create_shed_ranges()
    _create_cameras()


def downgrade() -> None:
    """Undo."""
    for table in ("ledger_shed_ranges", "cameras", "camera_states"):
        op.drop_table(table)
    for column in _REPLACED:
        op.create_index(op.f(f"ix_ledger_captured_{column}"), "ledger_captured", [column])
    op.drop_index(_KEPT, "inspections")
    for name, table, _ in _SEQUENCES:
        op.drop_index(name, table)
    for table, column in _INDEXES:
        op.drop_index(op.f(f"ix_{table}_{column}"), table)
    for table, columns in _COLUMNS.items():
        for name, _, _ in columns:
            op.drop_column(table, name)


def _create_shed_ranges() -> None:
    op.create_table(
        "ledger_shed_ranges",
        sa.Column("entry_id", sa.String(length=36), nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("camera", sa.String(length=1024), nullable=False),
        sa.Column("epoch", sa.String(length=1024), nullable=False),
        sa.Column("first", sa.BigInteger(), nullable=False),
        sa.Column("last", sa.BigInteger(), nullable=False),
        sa.Column("reason", sa.String(length=64), nullable=False),
        sa.Column("declared_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("entry_id", "number", name=op.f("pk_ledger_shed_ranges")),
    )
    op.create_index("ix_ledger_shed_ranges_sequence", "ledger_shed_ranges", ["camera", "epoch", "first"])


def _create_cameras() -> None:
    op.create_table(
        "cameras",
        sa.Column("camera", sa.String(length=128), nullable=False),
        sa.Column("source", sa.String(length=2048), nullable=False),
        sa.Column("secret", sa.String(length=1024), nullable=True),
        sa.Column("push_token_sha256", sa.String(length=64), nullable=True),
        sa.Column("options", sa.JSON(), nullable=False),
        sa.Column("is_paused", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("changed_by", sa.String(length=256), nullable=False),
        sa.Column("changed_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("camera", name=op.f("pk_cameras")),
    )
    op.create_table(
        "camera_states",
        sa.Column("camera", sa.String(length=128), nullable=False),
        sa.Column("ingester", sa.String(length=256), nullable=False),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=False),
        sa.Column("state", sa.String(length=32), nullable=False),
        sa.Column("message", sa.String(length=1024), nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
        sa.Column("epoch", sa.String(length=64), nullable=True),
        sa.Column("captured", sa.BigInteger(), nullable=False),
        sa.Column("acknowledged", sa.BigInteger(), nullable=False),
        sa.Column("shed", sa.BigInteger(), nullable=False),
        sa.Column("spooled", sa.BigInteger(), nullable=False),
        sa.Column("fps", sa.Float(), nullable=False),
        sa.Column("last_frame_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("configured_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("told_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("camera", name=op.f("pk_camera_states")),
    )
    op.create_index(op.f("ix_camera_states_state"), "camera_states", ["state"])
