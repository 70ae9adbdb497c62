"""CloudEvents 1.0 Kafka binding, binary mode: strict when writing, lenient when reading.

The `cloudevents` library writes the headers. It refuses records without the required ones, and
anyone may publish a bare image, so reading is our own: a header that cannot be understood is
treated as absent, and the frame is still judged.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from cloudevents.core.bindings.kafka import to_binary
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent

from services.wire.record import Headers

_FORMAT = JSONFormat()
# More than any honest header needs; longer ones are cut, so that nobody fills the database by them.
_LONGEST_VALUE = 1024
# Attributes that the binding, or everybody's habit, writes without the prefix.
_BARE = ("content-type", "traceparent")


def write_headers(
    *,
    event_type: str,
    source: str,
    event_id: str,
    time: datetime,
    content_type: str,
    subject: str | None = None,
    extensions: Mapping[str, str | None] | None = None,
) -> Headers:
    """Return CloudEvents headers; extensions that are None are left out."""
    attributes: dict[str, object] = {
        "id": event_id,
        "source": source,
        "type": event_type,
        "time": time,
        "datacontenttype": content_type,
    }
    if subject:
        attributes["subject"] = subject
    attributes |= {name: value for name, value in (extensions or {}).items() if value is not None}
    message = to_binary(CloudEvent(attributes, b""), _FORMAT)
    return tuple(message.headers.items())


def read_headers(headers: Headers) -> dict[str, str]:
    """Return CloudEvents attribute -> text of what can be read; `ce_` is cut off, names are lower case.

    Headers without it say nothing about the event but for `content-type` and `traceparent`: a device's
    own header `id` must not make all of its frames one. See `read_texts` for the rest.
    """
    texts = read_texts(headers)
    found = {name: texts[name] for name in _BARE if name in texts}
    return found | {name.removeprefix("ce_"): text for name, text in texts.items() if name.startswith("ce_")}


def read_texts(headers: Headers) -> dict[str, str]:
    """Return header name, lower case -> text.

    The first header of a name wins. Bytes that are not UTF-8 text make the header absent.
    """
    found: dict[str, str] = {}
    for raw_name, raw_value in headers:
        name = raw_name.lower()
        if name in found or not raw_value:
            continue
        try:
            text = raw_value[:_LONGEST_VALUE].decode("utf-8").strip()
        except UnicodeDecodeError:
            continue
        if text and text.isprintable():
            found[name] = text
    return found


def read_time(text: str | None) -> datetime | None:
    """Return an aware UTC time, None where the text is none; a time without zone is UTC."""
    if not text:
        return None
    try:
        time = datetime.fromisoformat(text)
        return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def read_number(text: str | None) -> int | None:
    """Return a non-negative 63-bit integer, None where the text is none."""
    if not text or not text.isascii() or not text.isdigit():
        return None
    number = int(text)
    return number if number < 1 << 63 else None
