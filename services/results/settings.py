"""Settings of the results service; the only file of this package that reads the environment."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from services.adapters.settings import S3Settings


class ResultsSettings(S3Settings):
    """Read once at start, from `LOUPE_…`."""

    model_config = SettingsConfigDict(env_prefix="LOUPE_", frozen=True, populate_by_name=True)

    kafka_bootstrap: str = Field(
        default="127.0.0.1:9092", description="Kafka, host:port, comma separated; its usual port."
    )
    database_url: str = Field(
        default="sqlite:///.loupe/loupe.db", description="SQLite or PostgreSQL, as SQLAlchemy writes it."
    )
    redis_url: str | None = Field(default=None, description="Redis for the live view; none: no live view.")
    results_port: int = Field(default=9464, ge=1, le=65535, description="Port of /metrics and /healthz.")
    results_host: str = Field(default="127.0.0.1", description="Address that the page listens on.")
    results_batch_records: int = Field(
        default=500,
        ge=1,
        le=5000,
        description="Records of one transaction at most; 500 take about 40 ms of the 100 promised.",
    )
    results_poll_ms: int = Field(
        default=10,
        ge=1,
        le=1000,
        description="Wait for a batch (ms). FastStream sleeps as long again after each empty wait, so this "
        "is the latency that polling adds at most.",
    )
    results_slow_poll_ms: int = Field(
        default=100,
        ge=1,
        le=5000,
        description="The same (ms) for ledger and dead letters, which nobody awaits.",
    )
    results_gauges_every_s: float = Field(
        default=2.0, gt=0, le=60, description="Seconds between two looks at lag and ledger gap."
    )
    results_max_poison_ratio: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="Share (0-1) of refused records among the latest above which the process stops: half of "
        "a topic unreadable is a wrong writer, not bad luck.",
    )
    retention_every_s: float = Field(
        default=3600.0,
        ge=1,
        le=86400,
        description="Seconds between two turns that delete pixels whose time has run out.",
    )
