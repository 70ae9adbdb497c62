"""Settings of the bench; the only file of this package that reads the environment."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class BenchSettings(BaseSettings):
    """Where the sets are."""

    model_config = SettingsConfigDict(frozen=True)

    inspection_data: Path = Field(
        default=Path("../shared/data"), description="Folder of the sets; beside the checkout by default."
    )
