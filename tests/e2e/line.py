"""A whole running line for end-to-end tests: the stack, a hosted project, what users do to them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from sqlalchemy import Engine, select

from services.adapters.broker.kafka import KafkaBrokerProducer
from services.adapters.database import reading
from services.adapters.database.tables import hostings, inspections, quarantine
from services.embedded.stack import StackAddresses
from services.wire.record import Headers, OutRecord
from tests.poll import poll_until

LOUPE = Path(sys.executable).with_name("loupe")


def loupe(home: Path, *words: str, timeout_s: float = 240, code: int | None = 0) -> str:
    """Run the command as a user does and return what it printed; `code` None takes any exit code."""
    environment = {**os.environ, "LOUPE_HOME": str(home), "COLUMNS": "140"}  # noqa: TID251  # a child's
    done = subprocess.run(
        [LOUPE, *words], env=environment, capture_output=True, text=True, timeout=timeout_s, check=False
    )
    if code is not None:
        assert done.returncode == code, f"loupe {' '.join(words)}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


def wait_until_hosted(
    engine: Engine, project: str, *, version: str | None = None, deadline_s: float = 90
) -> str:
    """Return the version of `project` that is served, once one is (or `version`, if given)."""

    def served() -> str | None:
        with reading(engine) as connection:
            row = connection.execute(select(hostings).where(hostings.c.project == project)).first()
        if row is None or row.status != "HOSTED" or (version and row.version != version):
            return None
        found: str = row.version
        return found

    return poll_until(served, deadline_s=deadline_s, what=f"{project} is served") or ""


@dataclass
class Line:
    """One running stack with one hosted project."""

    home: Path
    addresses: StackAddresses
    engine: Engine
    project: str
    photos: Path

    def publish(self, camera: str, *images: bytes, headers: Headers = ()) -> list[str]:
        """Publish bare images as any producer may, and return `partition:offset` of each."""
        producer = KafkaBrokerProducer(self.addresses.kafka_bootstrap)
        sent = [producer.send(OutRecord("loupe.frames", camera.encode(), image, headers)) for image in images]
        places = [delivery.result(30) for delivery in sent]
        producer.close()
        return [f"{place.partition}:{place.offset}" for place in places]

    def ledger(self, camera: str) -> dict[str, Any] | None:
        """Return the balance of a camera, as `loupe ledger --json` prints it."""
        cameras: dict[str, Any] = json.loads(loupe(self.home, "ledger", "--json", code=None))["cameras"]
        return cameras.get(camera)

    def wait_for_balance(self, camera: str, *, captured: int, deadline_s: float = 90) -> dict[str, Any]:
        """Return the camera's balance once `captured` frames are known and none is missing."""

        def balanced() -> dict[str, Any] | None:
            found = self.ledger(camera)
            return found if found and found["captured"] == captured and not found["missing"] else None

        return (
            poll_until(
                balanced, deadline_s=deadline_s, every_s=0.5, what=f"{captured} frames of {camera} balance"
            )
            or {}
        )

    def verdicts(self, camera: str) -> list[Any]:
        """Return the stored inspections of a camera, oldest first."""
        query = select(inspections).where(inspections.c.camera == camera).order_by(inspections.c.captured_at)
        with reading(self.engine) as connection:
            return list(connection.execute(query))

    def quarantined(self, camera: str) -> list[Any]:
        """Return the quarantined frames of a camera."""
        with reading(self.engine) as connection:
            return list(connection.execute(select(quarantine).where(quarantine.c.camera == camera)))

    def pid_of(self, part: str) -> int:
        """Return the main process of a part."""
        parts = json.loads(loupe(self.home, "status", "--json"))
        return next(int(found["pid"]) for found in parts if found["name"] == part)

    def replica_of(self, deployment: str) -> psutil.Process:
        """Return the process of a Serve replica of this stack's Ray."""
        ray = psutil.Process(self.pid_of("ray"))
        titles = {child: child.cmdline() for child in ray.children(recursive=True)}
        return next(
            child for child, title in titles.items() if title and f"ServeReplica:{deployment}" in title[0]
        )
