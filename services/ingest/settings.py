"""Settings of the ingest process; the only file of this package that reads the environment."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from services.adapters.settings import S3Settings
from services.domain.errors import BadRequest

# A secret that begins so names a variable of the ingester.
ENV = "env:"

# Where Python and its libraries are, of what language and zone texts are, and by which way HTTP goes out.
_FOR_CHILDREN = (
    "PATH", "HOME", "LANG", "LC_", "TZ", "TMPDIR", "LD_", "PYTHON", "SSL_CERT_",
    "http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY",
)  # fmt: skip


class ConnectionSettings(S3Settings):
    """Where frames go."""

    model_config = SettingsConfigDict(env_prefix="LOUPE_", frozen=True)

    kafka_bootstrap: str | None = Field(default=None, description="Kafka, host:port, comma separated.")


class IngestSettings(ConnectionSettings):
    """What one ingester runs, and where frames wait and go."""

    kafka_bootstrap: str = Field(
        default="127.0.0.1:9092", description="Kafka, host:port, comma separated; its usual port."
    )
    database_url: str = Field(
        default="sqlite:///.loupe/loupe.db",
        repr=False,
        description="SQLite or PostgreSQL, as SQLAlchemy writes it.",
    )
    home: Path = Field(default=Path(".loupe"), description="Folder of all state.")
    spool_folder: Path | None = Field(
        default=None, description="Where frames wait for Kafka; none: spool/ingest below the home."
    )
    spool_max_bytes: int = Field(
        default=10 << 30,
        ge=64 << 20,
        description="Frames on disk (bytes) at most; less where the disk has less, so that 1 GiB stays.",
    )
    spool_replay_bytes_per_s: float = Field(
        default=48.0 * (1 << 20),
        gt=0,
        description="How fast a backlog goes to Kafka (bytes/s) at most, beside live frames.",
    )
    ingest_max_cameras: int = Field(
        default=256,
        ge=1,
        le=10_000,
        description="Cameras (count) that run at once; others wait. A thread each, a process for a stream.",
    )
    ingest_cameras: str = Field(
        default="*",
        description="Ids of cameras that may run here, comma separated, with * and ?: for those whose "
        "folder or USB port is on this machine.",
    )
    ingest_stop_s: float = Field(
        default=12.0,
        gt=0,
        le=300,
        description="Seconds that a stop takes at most: sources end, and Kafka gets what it can; the rest "
        "stays in the spool.",
    )
    ingest_port: int = Field(default=9101, ge=1, le=65535, description="Port of the HTTP door.")
    ingest_host: str = Field(
        default="127.0.0.1",
        description="Address of that port; 0.0.0.0 in a pod, where pictures are pushed by network.",
    )

    @property
    def spool_path(self) -> Path:
        """Where the spool is."""
        return (self.spool_folder or self.home / "spool" / "ingest").expanduser().resolve()

    @property
    def camera_patterns(self) -> tuple[str, ...]:
        """The patterns of `ingest_cameras`."""
        return tuple(one.strip() for one in self.ingest_cameras.split(",") if one.strip())


def environment_of_children() -> dict[str, str]:
    """Return what a child that decodes needs of this process's environment: no password of anything."""
    return {name: value for name, value in os.environ.items() if name.startswith(_FOR_CHILDREN)}  # noqa: TID251


def secret_of(stored: str | None) -> str | None:
    """Return the secret that a configured one stands for: `env:NAME` is a variable of this process.

    Raises:
        BadRequest: there is no such variable.
    """
    if stored is None or not stored.startswith(ENV):
        return stored
    name = stored.removeprefix(ENV)
    value = os.environ.get(name)  # noqa: TID251 - only the person who set up the camera knows the name
    if not value:
        raise BadRequest(f"The ingester has no variable {name}, which is to hold the camera's secret.")
    return value
