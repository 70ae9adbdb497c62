"""What the picture was like, promotion of versions, progress and policies of trainings, dataset versions."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "20261123_detectors"
down_revision = "20261122_line"
branch_labels = None
depends_on = None

_TIME = sa.DateTime(timezone=True)


def _text(length: int, default: str) -> tuple[Any, dict[str, Any]]:
    return sa.String(length=length), {"nullable": False, "server_default": default}


_DOCUMENT: tuple[Any, dict[str, Any]] = (sa.JSON(), {"nullable": False, "server_default": "{}"})

# Table -> its new columns.
_COLUMNS: dict[str, tuple[tuple[str, tuple[Any, dict[str, Any]]], ...]] = {
    "inspections": (("picture", _DOCUMENT),),
    "model_versions": (
        ("state", _text(16, "promoted")),
        ("evidence", _DOCUMENT),
        ("decided_at", (_TIME, {})),
        ("data_digest", _text(64, "")),
        ("family", _text(128, "")),
        ("parent", _text(128, "")),
    ),
    "training_jobs": (
        ("author", _text(256, "")),
        ("trigger", _text(16, "request")),
        ("options", _DOCUMENT),
        ("stage", _text(32, "")),
        ("done_ratio", (sa.Float(), {"nullable": False, "server_default": "0"})),
        ("eta_s", (sa.Float(), {})),
        ("told_at", (_TIME, {})),
        ("memory_bytes", (sa.BigInteger(), {})),
        ("cancelled_by", (sa.String(length=256), {})),
    ),
    "dataset_entries": (
        ("pixels_sha256", (sa.String(length=64), {})),
        ("stored_at", (_TIME, {})),
        ("split", (sa.String(length=8), {})),
        ("origin", _text(8, "label")),
    ),
}


def upgrade() -> None:
    """Apply."""
    for table, added in _COLUMNS.items():
        for name, (kind, how) in added:
            op.add_column(table, sa.Column(name, kind, **how))
    op.create_index("ix_dataset_entries_origin", "dataset_entries", ["origin", "project", "stored_at"])
    op.create_table(
        "training_policies",
        sa.Column("project", sa.String(length=128), nullable=False),
        sa.Column("after_labels", sa.Integer()),
        sa.Column("nightly_at", sa.String(length=5)),
        sa.Column("options", sa.JSON(), nullable=False),
        sa.Column("changed_by", sa.String(length=256), nullable=False),
        sa.Column("changed_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("project", name=op.f("pk_training_policies")),
    )
    op.create_table(
        "dataset_versions",
        sa.Column("project", sa.String(length=128), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("uri", sa.String(length=1024), nullable=False),
        sa.Column("images", sa.Integer(), nullable=False),
        sa.Column("counts", sa.JSON(), nullable=False),
        sa.Column("findings", sa.JSON(), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("seen_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("project", "digest", name=op.f("pk_dataset_versions")),
    )


def downgrade() -> None:
    """Take back."""
    op.drop_table("dataset_versions")
    op.drop_table("training_policies")
    op.drop_index("ix_dataset_entries_origin", "dataset_entries")
    for table, added in _COLUMNS.items():
        with op.batch_alter_table(table) as batch:
            for name, _ in added:
                batch.drop_column(name)
