"""Settings of the ingest process; the only file of this package that reads the environment."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class ConnectionSettings(BaseSettings):
    """Where frames go."""

    model_config = SettingsConfigDict(env_prefix="LOUPE_", frozen=True)

    kafka_bootstrap: str | None = Field(default=None, description="Kafka, host:port, comma separated.")
    s3_endpoint: str | None = Field(
        default=None, validation_alias="AWS_ENDPOINT_URL_S3", description="S3 server; none: Amazon's."
    )
    s3_key: str | None = Field(default=None, validation_alias="AWS_ACCESS_KEY_ID", description="Key id.")
    s3_secret: str | None = Field(
        default=None, validation_alias="AWS_SECRET_ACCESS_KEY", repr=False, description="Secret key."
    )
    s3_region: str = Field(
        default="us-east-1", validation_alias="AWS_DEFAULT_REGION", description="Region of the buckets."
    )


class IngestSettings(ConnectionSettings):
    """One camera, its source, and where its frames go."""

    kafka_bootstrap: str = Field(description="Kafka, host:port, comma separated.")
    camera: str = Field(description="Camera id; the key of its records.")
    source: str = Field(description="A folder with images, `synthetic` or `synthetic:SEED`.")
    camera_fps: float = Field(default=5.0, gt=0, description="Frames per second.")
    source_loop: bool = Field(default=False, description="Show a folder over and over.")
    source_watch: bool = Field(default=False, description="Wait for new files of a folder.")
    project: str | None = Field(
        default=None, description="Project that is to judge; none lets routes decide."
    )
    ingest_port: int = Field(default=9101, ge=1, le=65535, description="Port of /healthz and /metrics.")
    ingest_host: str = Field(
        default="127.0.0.1",
        description="Address of that port; 0.0.0.0 in a pod, because probes come by network.",
    )
