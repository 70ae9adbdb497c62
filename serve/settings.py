"""Settings of everything inside the Ray cluster; the only file of `serve` that reads the environment.

Replicas inherit the environment that the Ray node was started with.
"""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from services.adapters.settings import S3Settings
from services.domain.topics import INLINE_LIMIT_BYTES


class ServeSettings(S3Settings):
    """Where a replica's neighbours are, and how much it may have in flight."""

    model_config = SettingsConfigDict(env_prefix="LOUPE_", frozen=True, populate_by_name=True)

    home: Path = Field(default=Path(".loupe"), description="Folder of state; models are cached inside.")
    kafka_bootstrap: str = Field(
        default="127.0.0.1:9092", description="Kafka, host:port, comma separated; its usual port."
    )
    triton_grpc: str = Field(
        default="127.0.0.1:8001", description="This node's tritonserver, host:port; its usual port."
    )
    triton_repository: Path = Field(
        default=Path(".loupe/triton/models"), description="This node's model repository."
    )
    gateway_host: str = Field(
        default="127.0.0.1", description="Address of the synchronous door; loopback on one machine."
    )
    gateway_port: int = Field(default=9000, ge=1, le=65535, description="Port of the synchronous door.")
    inference_units: int = Field(
        default=1, ge=1, description="Inference units that a node offers; they share its cores."
    )
    stream_in_flight_frames: int = Field(
        default=128,
        ge=16,
        description="Frames that a stream replica has polled and not done; twice what its calls hold.",
    )
    stream_in_flight_bytes: int = Field(
        default=64 << 20,
        ge=2 * INLINE_LIMIT_BYTES,
        description="The same in bytes; at least two images of the largest size.",
    )
    stream_batches_count: int = Field(
        default=4,
        ge=1,
        le=16,
        description="Calls at once per project; two per unit keep it busy: one decodes, one infers.",
    )
    stream_commit_interval_s: float = Field(
        default=0.5, gt=0, le=30, description="Offsets are committed this often, in seconds."
    )
    stream_poison_ratio: float = Field(
        default=0.5,
        gt=0,
        le=1,
        description="The stream stops when more than this share of its latest frames is poison (0-1).",
    )

    @property
    def threads_per_unit(self) -> int:
        """CPU threads of one unit's graph and of its decoder."""
        return max(1, len(os.sched_getaffinity(0)) // self.inference_units)
