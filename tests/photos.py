"""Where the real photos are: `$INSPECTION_DATA` or `../shared/data`; their tests skip where absent."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic_settings import BaseSettings


class PhotoSettings(BaseSettings):
    """Where the real photos are."""

    inspection_data: Path = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of the real photos."""
    folder = PhotoSettings().inspection_data
    if not folder.is_dir():
        pytest.skip(f"no photos in {folder}; set INSPECTION_DATA")
    return folder
