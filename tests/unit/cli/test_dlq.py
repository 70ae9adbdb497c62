"""Dead letters are found by topic, position and frame."""

from __future__ import annotations

import pytest

from services.adapters.broker.memory import MemoryBroker
from services.adapters.broker.reader import MemoryTopicReader
from services.cli.dlq import find, letters
from services.domain.errors import BadRequest, LoupeError, Rejected
from services.wire.record import OutRecord
from tests.unit.results.builders import frame, letter, publish


@pytest.fixture
def reader() -> MemoryTopicReader:
    broker = MemoryBroker(partitions=1)
    broker.append(OutRecord("loupe.frames.dlq", b"k", b"somebody else's"))
    for one in publish(broker, frame(1), frame(2, "cam-2")):
        broker.append(letter(one))
    return MemoryTopicReader(broker)


@pytest.mark.parametrize("topic", [None, "loupe.frames", "loupe.frames.dlq"])
def test_letters_are_listed_with_their_place(reader: MemoryTopicReader, topic: str | None) -> None:
    found = list(letters(reader, topic))
    assert [one.place for one in found] == ["loupe.frames.dlq:0:1", "loupe.frames.dlq:0:2"]
    assert [one.letter.camera for one in found] == ["cam-1", "cam-2"]
    assert found[0].size_bytes == len(b"pixels")
    assert found[0].without_bytes().letter.original.value == b""


def test_another_topic_has_none(reader: MemoryTopicReader) -> None:
    assert list(letters(reader, "loupe.ledger")) == []
    with pytest.raises(BadRequest, match="has no dead letters"):
        list(letters(reader, "loupe.events"))


def test_a_letter_is_found_by_place_and_by_frame(reader: MemoryTopicReader) -> None:
    by_frame = find(reader, str(frame(2, "cam-2").frame_id))
    assert by_frame == find(reader, "loupe.frames.dlq:0:2")
    assert by_frame.letter.original.value == b"pixels"


@pytest.mark.parametrize("which", ["nothing", "loupe.frames.dlq:0:9", "loupe.frames.dlq:7:1", "a:b:c"])
def test_what_does_not_exist_is_a_sentence(reader: MemoryTopicReader, which: str) -> None:
    with pytest.raises(BadRequest, match="no dead letter"):
        find(reader, which)


def test_every_reason_to_reject_has_a_hint() -> None:
    from services.cli.dlq import _HINTS

    def names(error: type[LoupeError]) -> set[str]:
        return {one.__name__ for one in error.__subclasses__()}

    assert names(Rejected) <= set(_HINTS)
