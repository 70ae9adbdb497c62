"""What the child tells its parent: messages with a length before them (arrow 1)."""

from __future__ import annotations

import json
import os
import struct
from dataclasses import dataclass

from services.domain.camera import CameraState

# Kind, then the length of the body.
_HEAD = struct.Struct("<cI")
# Number, position, seconds since 1970.
_PICTURE = struct.Struct("<QQd")
# No JPEG is longer; a longer body means that the pipe carries something else.
MAX_BODY_BYTES = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture.

    Attributes:
        number: counts all pictures of the run, also those passed over and damaged.
        position: counts the pictures of the film or connection.
        decoded_s: wall clock, seconds since 1970.
        jpeg: encoded bytes.
    """

    number: int
    position: int
    decoded_s: float
    jpeg: bytes


@dataclass(frozen=True, slots=True)
class Damaged:
    """One picture that could not be decoded."""

    number: int
    position: int
    reason: str


@dataclass(frozen=True, slots=True)
class Beat:
    """The child lives and its reader moves; sent when there is nothing else to say."""


@dataclass(frozen=True, slots=True)
class End:
    """Nothing follows.

    Attributes:
        count: pictures of the run.
        state: None: the film is through.
        message: a sentence for people.
    """

    count: int
    state: CameraState | None = None
    message: str = ""


Message = Picture | Damaged | Beat | End


def encode_message(message: Message) -> bytes:
    """Return a message as bytes."""
    if isinstance(message, Picture):
        body = _PICTURE.pack(message.number, message.position, message.decoded_s)
        return _HEAD.pack(b"P", len(body) + len(message.jpeg)) + body + message.jpeg
    if isinstance(message, Beat):
        return _HEAD.pack(b"B", 0)
    if isinstance(message, Damaged):
        kind, fields = b"D", [message.number, message.position, message.reason]
    else:
        kind, fields = b"E", [message.count, message.state, message.message]
    body = json.dumps(fields).encode()
    return _HEAD.pack(kind, len(body)) + body


def send(pipe: int, message: Message) -> None:
    """Write a message to a file descriptor; blocks while the pipe is full."""
    left = memoryview(encode_message(message))
    while left:
        left = left[os.write(pipe, left) :]


class Inbox:
    """Puts messages together from pieces of any size."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def add(self, piece: bytes) -> None:
        """Take what was read."""
        self._bytes += piece

    def take(self) -> Message | None:
        """Return the next whole message.

        Raises:
            ValueError: these are no messages.
        """
        if len(self._bytes) < _HEAD.size:
            return None
        kind, length = _HEAD.unpack_from(self._bytes)
        if length > MAX_BODY_BYTES or kind not in b"PBDE":
            raise ValueError(f"no message: kind {kind!r}, {length} bytes")
        end = _HEAD.size + length
        if len(self._bytes) < end:
            return None
        body = bytes(memoryview(self._bytes)[_HEAD.size : end])
        del self._bytes[:end]
        return _decode(kind, body)


def _decode(kind: bytes, body: bytes) -> Message:
    if kind == b"P":
        number, position, decoded_s = _PICTURE.unpack_from(body)
        return Picture(number, position, decoded_s, body[_PICTURE.size :])
    if kind == b"B":
        return Beat()
    first, second, third = json.loads(body)
    if kind == b"D":
        return Damaged(first, second, third)
    return End(first, second and CameraState(second), third)
