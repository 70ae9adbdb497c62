"""Times and ids between protobuf and domain."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

from google.protobuf.timestamp_pb2 import Timestamp

from services.domain.errors import MalformedRecord


def to_timestamp(time: datetime) -> Timestamp:
    """Return the protobuf form of an aware time."""
    stamp = Timestamp()
    stamp.FromDatetime(time)
    return stamp


def from_timestamp(stamp: Timestamp) -> datetime:
    """Return the aware UTC time of a protobuf timestamp.

    Raises:
        MalformedRecord: outside of what a calendar holds.
    """
    try:
        return stamp.ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError) as error:
        raise MalformedRecord(f"The time {stamp.seconds} s is outside of the calendar.") from error


def to_uuid(text: str, what: str) -> UUID:
    """Return a UUID.

    Raises:
        MalformedRecord: the text is no UUID; the message names `what`.
    """
    try:
        return UUID(text)
    except ValueError as error:
        raise MalformedRecord(f"The {what} {text[:80]!r} is not a UUID.") from error
