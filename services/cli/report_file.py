"""The JSON file that `--report FILE` asks for: refused before any work, written after it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from services.domain.errors import BadRequest


def check_report(report: Path | None) -> None:
    """Make the report's folder, and refuse before any work what would be refused after it.

    Raises:
        BadRequest: it is a folder, or its folder cannot be made or written to.
    """
    if report is None:
        return
    try:
        if report.is_dir():
            raise BadRequest(f"{report} is a folder; give the name of a file.", report=str(report))
        is_new = not report.exists()
        report.parent.mkdir(parents=True, exist_ok=True)
        # Nothing is written yet; a folder may look writable and not be.
        report.open("a").close()
        if is_new:
            report.unlink()
    except OSError as error:
        raise BadRequest(f"{report} cannot be written: {error.strerror}.", report=str(report)) from error


def write_report(report: Path | None, document: Mapping[str, Any]) -> None:
    """Write the report, if one is wanted."""
    if report is not None:
        report.write_text(json.dumps(document, indent=1) + "\n")
