"""Settings of the hosting process; the only file of this package that reads the environment."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class HostingSettings(BaseSettings):
    """Where hosting's neighbours are, and what the cluster offers."""

    model_config = SettingsConfigDict(env_prefix="LOUPE_", frozen=True)

    kafka_bootstrap: str = Field(
        default="127.0.0.1:9092", description="Kafka, host:port, comma separated; its usual port."
    )
    database_url: str = Field(
        default="sqlite:///.loupe/loupe.db", description="SQLite or PostgreSQL; the file of one machine."
    )
    hosting_port: int = Field(
        default=9104, ge=1, le=65535, description="Port of /metrics and /healthz on loopback."
    )
    ray_dashboard_url: str = Field(
        default="http://127.0.0.1:8265", description="Ray's head: its REST door; Ray's usual port."
    )
    ray_token_path: Path | None = Field(
        default=None,
        validation_alias="RAY_AUTH_TOKEN_PATH",
        description="File with the token that Ray's head asks for; none: it asks for none.",
    )
    inference_units: int = Field(
        default=1, ge=1, description="Inference units that the whole cluster offers (count)."
    )
    default_units: int = Field(
        default=1,
        ge=1,
        description="Units of a project that nobody chose a number for; the first one gets all there are.",
    )
    stream_replicas_count: int = Field(
        default=1, ge=1, description="Consumers of frames; one feeds more units than a machine has."
    )
