"""Reading topics that people publish to: protobuf, or JSON with the same field names, by content type."""

from __future__ import annotations

from typing import TypeVar

from google.protobuf import json_format
from google.protobuf.message import DecodeError, Message

from services.domain.errors import MalformedRecord
from services.wire.headers import read_headers
from services.wire.record import Record

M = TypeVar("M", bound=Message)


def parse(record: Record, message: M) -> M:
    """Fill `message` from a record and return it.

    A record without content type is JSON if it begins with a brace, as `kcat` sends it.

    Raises:
        MalformedRecord: neither form can be read; the sentence says what is wrong.
    """
    content_type = read_headers(record.headers).get("content-type", "")
    is_json = "json" in content_type or (not content_type and record.value.lstrip()[:1] == b"{")
    name = type(message).__name__
    try:
        if is_json:
            json_format.Parse(record.value, message)
        else:
            message.ParseFromString(record.value)
    except json_format.ParseError as error:
        raise MalformedRecord(f"The value is not a JSON {name}: {error}") from error
    except (DecodeError, UnicodeDecodeError) as error:
        raise MalformedRecord(f"The value is not a protobuf {name}.") from error
    return message
