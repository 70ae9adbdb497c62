"""Settings of the trainer; the only file of this package that reads the environment."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from services.adapters.settings import S3Settings


class TrainerSettings(S3Settings):
    """Where the trainer's neighbours are, and what it may spend."""

    model_config = SettingsConfigDict(env_prefix="LOUPE_", frozen=True)

    home: Path = Field(
        default=Path(".loupe"), description="Folder of state; a fit works in `trainer/` inside it."
    )
    kafka_bootstrap: str = Field(
        default="127.0.0.1:9092", description="Kafka, host:port, comma separated; its usual port."
    )
    database_url: str = Field(
        default="sqlite:///.loupe/loupe.db", description="SQLite or PostgreSQL; the file of one machine."
    )
    trainer_port: int = Field(
        default=9103, ge=1, le=65535, description="Port of /metrics and /healthz on loopback."
    )
    fit_timeout_s: float = Field(
        default=1800.0,
        gt=0,
        description="A fit that takes longer has failed; 1,000 photos take about two minutes on two cores.",
    )
    max_poison_ratio: float = Field(
        default=0.5,
        gt=0,
        le=1,
        description="Share of the last 50 labels that may be refused before the trainer stops loudly.",
    )
