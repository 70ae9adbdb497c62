"""FastStream's messages as ours: records whole, with headers that nobody has tried to read.

FastStream decodes headers as UTF-8 and values by content type before a handler sees them, logs what
fails and goes on to the next message, whose acknowledgement then skips the one that failed. Anyone may
publish any headers, so both steps are left to `services.wire`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

from faststream.kafka.message import KafkaMessage

from services.adapters.broker.kafka import record_of
from services.wire.record import Record

# aiokafka's ConsumerRecord; the library ships no types that could be checked.
Raw = Any


async def parse_without_headers(
    message: Raw, original: Callable[[Any], Awaitable[KafkaMessage]]
) -> KafkaMessage:
    """FastStream's own parser, which sees no headers; the message keeps the record as it came."""
    if isinstance(message, Sequence):
        parsed = await original(tuple(replace(one, headers=()) for one in message))
    else:
        parsed = await original(replace(message, headers=()))
    parsed.raw_message = message
    return parsed


async def leave_whole(message: KafkaMessage) -> KafkaMessage:
    """A decoder that decodes nothing: the handler gets the message and acknowledges it itself."""
    return message


def records_of(message: KafkaMessage) -> list[Record]:
    """Return the records of a message or of a batch of them, in order."""
    raw = message.raw_message
    return [record_of(one) for one in (raw if isinstance(raw, Sequence) else (raw,))]
