"""Dead letters are found by topic, position and frame."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from services.adapters.broker.memory import MemoryBroker
from services.adapters.broker.reader import MemoryTopicReader
from services.cli.dead_letters import HINTS, Filters, find, letters
from services.cli.dlq_views import (
    MANIFEST,
    Group,
    export_letter,
    print_details,
    print_groups,
    print_letters,
    suffix_of,
)
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
    found = list(letters(reader, Filters(topic=topic)))
    assert [one.place for one in found] == ["loupe.frames.dlq:0:1", "loupe.frames.dlq:0:2"]
    assert [one.letter.camera for one in found] == ["cam-1", "cam-2"]
    assert found[0].size_bytes == len(b"pixels")
    assert found[0].without_bytes().letter.original.value == b""


def test_another_topic_has_none(reader: MemoryTopicReader) -> None:
    assert list(letters(reader, Filters(topic="loupe.ledger"))) == []
    with pytest.raises(BadRequest, match="has no dead letters"):
        list(letters(reader, Filters(topic="loupe.events")))


def test_a_letter_is_found_by_place_and_by_frame(reader: MemoryTopicReader) -> None:
    by_frame = find(reader, str(frame(2, "cam-2").frame_id))
    assert by_frame == find(reader, "loupe.frames.dlq:0:2")
    assert by_frame.letter.original.value == b"pixels"


@pytest.mark.parametrize("which", ["nothing", "loupe.frames.dlq:0:9", "loupe.frames.dlq:7:1", "a:b:c"])
def test_what_does_not_exist_is_a_sentence(reader: MemoryTopicReader, which: str) -> None:
    with pytest.raises(BadRequest, match="There is no dead letter"):
        find(reader, which)


def test_every_reason_to_reject_has_a_hint() -> None:
    def names(error: type[LoupeError]) -> set[str]:
        return {one.__name__ for one in error.__subclasses__()}

    assert names(Rejected) <= set(HINTS)


def test_letters_are_filtered_by_cause_and_camera(reader: MemoryTopicReader) -> None:
    assert [one.letter.camera for one in letters(reader, Filters(camera="cam-2"))] == ["cam-2"]
    assert list(letters(reader, Filters(cause="HashMismatch"))) == []
    assert len(list(letters(reader, Filters(cause="UnreadableImage")))) == 2


def test_groups_say_how_many_of_whom_and_what_to_do(reader: MemoryTopicReader) -> None:
    group = Group()
    for one in letters(reader):
        group.add(one)
    assert (group.count, group.cameras, group.causes) == (2, {"cam-1", "cam-2"}, {"UnreadableImage"})
    console = Console(width=200, color_system=None)
    with console.capture() as shown:
        print_groups(console, {"UnreadableImage": group}, "cause")
    assert HINTS["UnreadableImage"] in shown.get()


@pytest.mark.parametrize("width", [80, 140])
def test_groups_and_letters_fit_a_terminal_and_break_no_id(reader: MemoryTopicReader, width: int) -> None:
    console = Console(width=width, force_terminal=True, color_system=None)
    found = [replace(one, is_judged=True) for one in letters(reader)]
    reason = "The 25 bytes are not an image that can be decoded: no JPEG, PNG or WebP begins so. " * 2
    told = [replace(one.letter, reason=reason, cause="FrameCrashesModel") for one in found]
    found = [replace(one, letter=new) for one, new in zip(found, told, strict=True)]
    groups = {name: Group() for name in HINTS}
    for one in found:
        for group in groups.values():
            group.add(one)
    with console.capture() as shown:
        print_groups(console, groups, "cause")
        print_letters(console, found)
        print_details(console, found[0])
    lines = shown.get().splitlines()
    assert [line for line in lines if len(line) > width] == []
    assert lines[0].split() == ["cause", "letters", "judged", "since", "cameras", "first", "last"]
    heads = [line for line in lines if line.startswith("position")]
    assert heads[0].split()[:5] == ["position", "failed", "at", "cause", "camera"]
    assert sum(found[0].letter.frame_id in line for line in lines) == 2
    assert any(line.startswith("loupe.frames.dlq:0:1 ") for line in lines)
    assert " ".join(reason.split()) in " ".join(shown.get().split())


def test_exported_files_are_never_overwritten(reader: MemoryTopicReader, tmp_path: Path) -> None:
    first, second = letters(reader)
    path = export_letter(first, tmp_path)
    assert path is not None
    assert path.read_bytes() == b"pixels"
    assert export_letter(first, tmp_path) is None
    path.write_bytes(b"somebody's work")
    other = export_letter(first, tmp_path)
    assert other is not None
    assert (path.read_bytes(), other.read_bytes()) == (b"somebody's work", b"pixels")
    export_letter(second, tmp_path)
    told = [json.loads(line) for line in (tmp_path / MANIFEST).read_text().splitlines()]
    assert [one["camera"] for one in told] == ["cam-1", "cam-1", "cam-2"]
    assert {one["file"] for one in told} == {p.name for p in tmp_path.iterdir()} - {MANIFEST}


def test_a_name_that_leads_elsewhere_stays_in_the_folder(reader: MemoryTopicReader, tmp_path: Path) -> None:
    (one, _) = letters(reader)
    evil = replace(one, letter=replace(one.letter, camera="../../etc/\x00passwd"))
    path = export_letter(evil, tmp_path)
    assert path is not None
    assert path.resolve().parent == tmp_path.resolve()


@pytest.mark.parametrize(
    ("data", "suffix"),
    [
        (b"\xff\xd8\xff\xe0", ".jpg"),
        (b"\x89PNG\r\n\x1a\n", ".png"),
        (b"RIFF\x00\x00\x00\x00WEBPVP8 ", ".webp"),
        (b'{"a": 1}', ".json"),
        (b"", ".bin"),
        (b"#!/bin/sh", ".bin"),
    ],
)
def test_files_are_called_by_their_bytes(data: bytes, suffix: str) -> None:
    assert suffix_of(data) == suffix
