"""What anyone may publish, and what becomes of it."""

from __future__ import annotations

import io
import json
import struct
import zlib
from uuid import uuid4

import pytest
from kafka import KafkaConsumer
from PIL import Image

from services.domain.frame import RecordPosition, frame_id_of
from services.embedded.settings import EmbeddedSettings
from services.embedded.stack import foreign_listeners
from tests.e2e.line import Line, loupe
from tests.poll import poll_until

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]


def photo(line: Line, number: int = 0, kind: str = "normal") -> bytes:
    return sorted((line.photos / kind).iterdir())[number].read_bytes()


def as_format(image: bytes, mode: str, form: str, **options: object) -> bytes:
    out = io.BytesIO()
    opened = Image.open(io.BytesIO(image))
    (opened.convert("L").convert(mode) if mode == "I;16" else opened.convert(mode)).save(
        out,
        form,
        **options,
    )
    return out.getvalue()


def huge_png() -> bytes:
    """A sound PNG header that claims 50,000 x 50,000 pixels, and next to no pixels."""
    out = io.BytesIO()
    Image.new("RGB", (8, 8)).save(out, "PNG")
    small = out.getvalue()
    # Signature and length are 12 bytes, then the chunk: IHDR, width, height, five bytes, CRC.
    chunk = small[12:16] + struct.pack(">II", 50_000, 50_000) + small[24:29]
    return small[:12] + chunk + struct.pack(">I", zlib.crc32(chunk)) + small[33:]


def test_a_bare_photo_becomes_an_event_that_anyone_can_read(line: Line) -> None:
    camera = f"bare-{uuid4().hex[:6]}"
    partition, offset = (int(n) for n in line.publish(camera, photo(line))[0].split(":"))
    place = RecordPosition("loupe.frames", partition, offset)
    wanted = frame_id_of(
        source=camera, event_id=None, camera=camera, epoch=None, sequence=None, position=place
    )
    reader = KafkaConsumer(
        "loupe.events",
        bootstrap_servers=line.addresses.kafka_bootstrap,
        group_id=None,
        auto_offset_reset="earliest",
    )

    def event() -> dict[str, object] | None:
        for records in reader.poll(timeout_ms=200).values():
            for record in records:
                found: dict[str, object] = json.loads(record.value)
                if found["subject"] == str(wanted):
                    return found
        return None

    found = poll_until(event, deadline_s=30, what="the event of the photo")
    reader.close()
    assert found is not None
    data = found["data"]
    assert isinstance(data, dict)
    assert (data["camera"], data["project"]) == (camera, line.project)
    assert line.wait_for_balance(camera, captured=1)["judged"] == 1


def test_bad_input_ends_in_quarantine_with_a_reason_and_the_partition_goes_on(line: Line) -> None:
    camera = f"bad-{uuid4().hex[:6]}"
    good = photo(line)
    bad = {
        "empty": b"",
        "text": b"this is not an image",
        "truncated": good[: len(good) // 3],
        "huge": huge_png(),
    }
    line.publish(camera, *bad.values(), good)
    balance = line.wait_for_balance(camera, captured=5)
    assert (balance["judged"], balance["quarantined"]) == (1, 4)
    rows = line.quarantined(camera)
    assert {row.cause for row in rows} == {"UnreadableImage", "ImageTooLarge"}
    assert all(row.reason.endswith(".") and row.tries <= 3 for row in rows)
    listed = loupe(line.home, "dlq", "list", "--json")
    assert all(row.frame_id in listed for row in rows)


def test_strange_but_readable_images_get_verdicts(line: Line) -> None:
    camera = f"odd-{uuid4().hex[:6]}"
    good = photo(line)
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated by 90 degrees
    odd = [
        as_format(good, "P", "PNG"),
        as_format(good, "CMYK", "JPEG"),
        as_format(good, "I;16", "PNG"),
        as_format(good, "RGBA", "PNG"),
        as_format(good, "RGB", "JPEG", exif=exif),
        as_format(good, "RGB", "WEBP"),
    ]
    line.publish(camera, *odd)
    assert line.wait_for_balance(camera, captured=len(odd))["judged"] == len(odd)


def test_garbage_headers_and_a_clock_in_the_future_still_get_verdicts(line: Line) -> None:
    camera = f"head-{uuid4().hex[:6]}"
    line.publish(camera, photo(line), headers=(("ce_time", b"\xff\xfe"), ("ce_sequence", b"-3"), ("", b"")))
    line.publish(camera, photo(line), headers=(("ce_time", b"2101-01-01T00:00:00Z"), ("ce_id", b"later")))
    assert line.wait_for_balance(camera, captured=2)["judged"] == 2
    assert all(row.latency_ms >= 0 for row in line.verdicts(camera))


def test_one_id_is_one_verdict_and_equal_bytes_are_many(line: Line) -> None:
    same, still = f"same-{uuid4().hex[:6]}", f"still-{uuid4().hex[:6]}"
    for _ in range(2):
        line.publish(same, photo(line), headers=(("ce_id", b"frame-1"), ("ce_source", same.encode())))
    line.publish(still, *[photo(line)] * 5)
    assert line.wait_for_balance(same, captured=1)["judged"] == 1
    assert line.wait_for_balance(still, captured=5)["judged"] == 5
    assert len(line.verdicts(same)) == 1


def test_the_model_tells_defects_from_good_parts(line: Line) -> None:
    good, bad = f"good-{uuid4().hex[:6]}", f"defect-{uuid4().hex[:6]}"
    line.publish(good, *(photo(line, n) for n in range(10)))
    line.publish(bad, *(photo(line, n, "anomaly") for n in range(10)))
    line.wait_for_balance(good, captured=10)
    line.wait_for_balance(bad, captured=10)
    found = {camera: sum(row.is_anomalous for row in line.verdicts(camera)) for camera in (good, bad)}
    assert found[good] <= 1
    assert found[bad] >= 7


def test_nothing_of_a_serving_stack_listens_beyond_loopback(line: Line) -> None:
    assert foreign_listeners(EmbeddedSettings(home=line.home)) == []
