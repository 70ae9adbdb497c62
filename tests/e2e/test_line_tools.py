"""Routes, pixels, labels and dead letters on the whole stack, as an operator uses them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from uuid import uuid4

import pytest

from services.adapters.object_store.store import FRAMES_BUCKET, image_reference, s3_store
from services.domain.inspection import Role
from tests.e2e.line import Line, loupe
from tests.poll import poll_until

pytestmark = [pytest.mark.real, pytest.mark.timeout(240)]


@pytest.fixture
def camera() -> str:
    """A camera id that no other test uses."""
    return f"tools-{uuid4().hex[:6]}"


def anomaly_of(line: Line) -> bytes:
    """Return a photo that the model calls anomalous, as its pixels are then kept."""
    return sorted((line.photos / "anomaly").iterdir())[0].read_bytes()


def test_a_route_is_changed_without_a_restart(line: Line, camera: str) -> None:
    stream = line.replica_of("stream:Stream").pid
    image = anomaly_of(line)
    loupe(line.home, "route", "add", f"{camera}*", line.project, "--archive", "none")
    loupe(line.home, "route", "add", "*", line.project, "--priority", "-1")
    try:
        # Routes are seen within seconds: publish until one verdict came without kept pixels.
        def without_pixels() -> bool:
            line.publish(camera, image)
            return any(row.image_uri is None for row in line.verdicts(camera))

        poll_until(without_pixels, deadline_s=60, every_s=1.0, what="the route is in force")
        (found,) = {row["frame_id"] for row in _last(line, camera)}
        assert "none" in loupe(line.home, "image", found, code=None).lower()
        assert line.replica_of("stream:Stream").pid == stream
    finally:
        loupe(line.home, "route", "remove", f"{camera}*", line.project)
        loupe(line.home, "route", "remove", "*", line.project)


def _last(line: Line, camera: str) -> list[dict[str, str]]:
    rows = [row for row in line.verdicts(camera) if row.image_uri is None]
    return [{"frame_id": row.frame_id} for row in rows[-1:]]


def test_pixels_of_a_verdict_are_found_and_labelled(line: Line, camera: str, tmp_path: Path) -> None:
    image = anomaly_of(line)
    line.publish(camera, image)
    line.wait_for_balance(camera, captured=1)
    (row,) = line.verdicts(camera)
    assert row.role == Role.LIVE
    saved = tmp_path / "found.jpg"
    loupe(line.home, "image", row.frame_id, "--save", str(saved))
    assert saved.read_bytes() == image
    # A project of its own: trainings of the line's project count their labels.
    loupe(line.home, "label", row.frame_id, "anomaly", "--project", "labelled", "--author", "ann")


def test_a_dead_letter_is_mended_and_redriven_under_its_id(line: Line, camera: str, tmp_path: Path) -> None:
    at = line.addresses
    store = s3_store(at.s3_endpoint, at.s3_key, at.s3_secret, at.s3_region)
    # Bytes of its own, so that nobody has stored them yet: JPEG readers ignore what follows the image.
    image = anomaly_of(line) + camera.encode()
    claim = image_reference(FRAMES_BUCKET, image)
    headers = (
        ("ce_dataref", claim.uri.encode()),
        ("ce_datarefsha256", hashlib.sha256(image).hexdigest().encode()),
        ("ce_datarefsize", str(len(image)).encode()),
    )
    line.publish(camera, b"", headers=headers)
    assert line.wait_for_balance(camera, captured=1)["quarantined"] == 1
    (letter,) = line.quarantined(camera)
    assert letter.cause == "UnknownObject"
    loupe(line.home, "dlq", "export", str(tmp_path / "letters"), "--camera", camera)
    assert (tmp_path / "letters" / "manifest.jsonl").read_text().count("\n") == 1

    store.put(claim.uri, image)
    loupe(line.home, "dlq", "redrive", "--all", "--camera", camera)

    def judged() -> bool:
        return bool(line.verdicts(camera))

    poll_until(judged, deadline_s=60, what="the redriven frame is judged")
    (row,) = line.verdicts(camera)
    assert row.frame_id == letter.frame_id
    balance = line.wait_for_balance(camera, captured=1)
    assert (balance["judged"], balance["quarantined"]) == (1, 0)
    again = json.loads(loupe(line.home, "dlq", "redrive", "--all", "--camera", camera, "--json"))
    assert again["redriven"] == 0
