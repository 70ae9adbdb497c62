"""Settings of the trainer; the only file of this package that reads the environment."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from services.adapters.settings import S3Settings
from services.trainer.scratch_triton import TritonParts


class FitPlace(StrEnum):
    """Where fits run."""

    PROCESS = "process"
    RAY = "ray"


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
        le=7 * 86400,
        description="A fit that takes longer has failed; 1,000 photos take about two minutes on two cores.",
    )
    fit_memory_bytes: int | None = Field(
        default=None,
        ge=1,
        description="Most memory that a fit may take; none: 80 % of what the machine (or control group) has.",
    )
    fit_runs_on: FitPlace = Field(
        default=FitPlace.PROCESS,
        description="`process`: beside the trainer; `ray`: on the cluster of `ray_address`.",
    )
    ray_address: str = Field(
        default="auto",
        description="Ray for fits: ray://host:10001 from outside, host:6379 on a node; auto: RAY_ADDRESS.",
    )
    max_poison_ratio: float = Field(
        default=0.5,
        gt=0,
        le=1,
        description="Share of the last 50 labels that may be refused before the trainer stops loudly.",
    )
    tritonserver: Path | None = Field(
        default=None,
        description="Folder of an installed tritonserver (`bin`, `backends`); candidates are proved in one "
        "of their own. None: with ONNX Runtime in the trainer's process.",
    )
    triton_python: Path | None = Field(
        default=None, description="Python of the environment of Triton's Python backend."
    )

    @property
    def triton_parts(self) -> TritonParts | None:
        """The installed tritonserver, if both of its addresses are given."""
        if self.tritonserver is None or self.triton_python is None:
            return None
        return TritonParts(self.tritonserver, self.triton_python)
