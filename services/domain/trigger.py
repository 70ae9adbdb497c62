"""A wish for one picture of a camera, by a light barrier, a PLC or a person (arrow 1)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Trigger:
    """One picture is wanted now.

    Attributes:
        camera: whose picture.
        trigger_id: names the trigger for people; the one who sends it chooses it, else its place in Kafka.
        triggered_at: aware UTC, by the clock of the record.
        part_id: part that lies before the camera.
        lot_id: its lot.
    """

    camera: str
    trigger_id: str
    triggered_at: datetime
    part_id: str | None = None
    lot_id: str | None = None
