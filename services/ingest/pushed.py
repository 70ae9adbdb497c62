"""What a pushed request says: its images and what is told of them, by headers or form fields (arrow 1).

CloudEvents headers follow the HTTP binding in binary mode (`ce-id`, `ce-time`, `ce-partid`, `ce-lotid`), and
Loupe's own are `X-Loupe-Part-Id` and `X-Loupe-Lot-Id`. Decodes no image.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass, replace
from datetime import datetime
from urllib.parse import unquote

from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from services.domain.errors import BadRequest
from services.domain.topics import CLAIM_LIMIT_BYTES
from services.ingest.sources.protocol import Shot
from services.wire.headers import read_time

MAX_IMAGES = 100
_MAX_FIELDS = 20
_MAX_FIELD_BYTES = 4096
# As in records: more than any honest header needs.
_LONGEST_VALUE = 1024
_LONGEST_ID = 128
_BYTES = "application/octet-stream"
# What clients claim that were told nothing of the body's kind; curl says the second.
_UNSAID = frozenset({"", _BYTES, "application/x-www-form-urlencoded", "binary/octet-stream"})


@dataclass(frozen=True, slots=True)
class Attributes:
    """What a request tells of its images.

    Attributes:
        event_id: CloudEvents source and id; a second request with them captures nothing again.
    """

    content_type: str = _BYTES
    subject: str = ""
    part_id: str | None = None
    lot_id: str | None = None
    captured_at: datetime | None = None
    event_id: tuple[str, str] | None = None
    traceparent: str | None = None


class _MemoryParser(MultiPartParser):
    """Keeps parts in memory: what is read is bounded already, and a temporary disk may be small."""

    spool_max_size = CLAIM_LIMIT_BYTES


def is_form(content_type: str) -> bool:
    """Tell whether the body holds several parts."""
    return content_type.startswith("multipart/form-data")


def is_image(content_type: str) -> bool:
    """Tell whether a body claims to be an image, or nothing."""
    return content_type == _BYTES or content_type.startswith("image/")


def read_attributes(headers: Headers) -> Attributes:
    """Return what the headers tell; one that cannot be understood is treated as absent."""
    event_id = _text(headers.get("ce-id"))
    return Attributes(
        content_type=_content_type(headers.get("content-type")),
        subject=_text(headers.get("ce-subject")) or "",
        part_id=_id(headers.get("x-loupe-part-id") or headers.get("ce-partid")),
        lot_id=_id(headers.get("x-loupe-lot-id") or headers.get("ce-lotid")),
        captured_at=read_time(headers.get("ce-time")),
        event_id=(_text(headers.get("ce-source")) or "", event_id) if event_id else None,
        traceparent=_text(headers.get("traceparent")),
    )


async def read_multipart(
    headers: Headers, stream: AsyncGenerator[bytes, None], attributes: Attributes
) -> list[tuple[bytes, Attributes]]:
    """Return the images of a form, in order; its fields `part_id` and `lot_id` hold for all of them.

    Raises:
        BadRequest: the form cannot be read, holds no file, or a file that claims to be no image.
    """
    parser = _MemoryParser(
        headers, stream, max_files=MAX_IMAGES, max_fields=_MAX_FIELDS, max_part_size=_MAX_FIELD_BYTES
    )
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise BadRequest(f"The form cannot be read: {error.message}") from error
    except (KeyError, ValueError) as error:
        raise BadRequest("The form cannot be read.") from error
    files = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
    fields = {name: value for name, value in form.multi_items() if isinstance(value, str)}
    shared = replace(
        attributes,
        part_id=attributes.part_id or _id(fields.get("part_id")),
        lot_id=attributes.lot_id or _id(fields.get("lot_id")),
    )
    found = []
    for file in files:
        kind = _content_type(file.content_type)
        if not is_image(kind):
            raise BadRequest(f"A file of the form is {kind}; send images.")
        own = replace(shared, content_type=kind, subject=_text(file.filename) or shared.subject)
        found.append((await file.read(), own))
        await file.close()
    if not found:
        raise BadRequest("The form holds no file; each image is a file of it.")
    return found


def shot_of(camera: str, image: bytes, told: Attributes, number: int | None) -> Shot:
    """Return the shot; `number` is its place in a request of several.

    Raises:
        BadRequest: there is nothing in it.
    """
    if not image:
        raise BadRequest("The image is empty.")
    receipt = None
    if told.event_id:
        receipt = "\x1f".join(("push", *told.event_id, *(() if number is None else (str(number),))))
    return Shot(
        image,
        told.content_type,
        told.subject or f"pushed to {camera}",
        told.part_id,
        told.lot_id,
        captured_at=told.captured_at,
        receipt=receipt,
        traceparent=told.traceparent,
    )


def _content_type(text: str | None) -> str:
    whole = (text or "").strip()
    kind = whole.partition(";")[0].strip().lower()
    if kind.startswith("multipart/"):
        return whole
    return _BYTES if kind in _UNSAID else kind[:_LONGEST_ID]


def _text(value: str | None) -> str | None:
    found = unquote(value or "")[:_LONGEST_VALUE].strip()
    return found if found and found.isprintable() else None


def _id(value: str | None) -> str | None:
    return (_text(value) or "")[:_LONGEST_ID] or None
