"""Messages survive the pipe in pieces of any size; anything else is noticed."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.domain.camera import CameraState
from services.ingest.video_child.messages import (
    MAX_BODY_BYTES,
    Beat,
    Damaged,
    End,
    Inbox,
    Message,
    Picture,
    encode_message,
    send,
)

MESSAGES: list[Message] = [
    Picture(2**40, 7, 1.5e9, b"\xff\xd8 picture"),
    Beat(),
    Damaged(3, 2, "the picture is damaged"),
    End(10),
    End(10, CameraState.UNREACHABLE, "Zürich is away."),
]


@given(st.lists(st.sampled_from(MESSAGES), max_size=6), st.integers(1, 50))
def test_messages_come_whole_from_pieces_of_any_size(messages: list[Message], size: int) -> None:
    data = b"".join(encode_message(message) for message in messages)
    inbox, found = Inbox(), []
    for at in range(0, len(data), size):
        inbox.add(data[at : at + size])
        while (message := inbox.take()) is not None:
            found.append(message)
    assert found == messages


def test_sending_writes_all_of_it() -> None:
    reading, writing = os.pipe()
    send(writing, MESSAGES[0])
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        assert pipe.read() == encode_message(MESSAGES[0])


@pytest.mark.parametrize("data", [b"Hello from a library", b"P" + (MAX_BODY_BYTES + 1).to_bytes(4, "little")])
def test_what_is_no_message_is_refused(data: bytes) -> None:
    inbox = Inbox()
    inbox.add(data)
    with pytest.raises(ValueError, match="no message"):
        inbox.take()
