"""What `loupe dlq` prints: groups, lists, one letter; and the files that it exports."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from rich.console import Console
from rich.text import Text

from services.cli.dead_letters import HINTS, NO_HINT, Found
from services.cli.layout import Column, Room, print_facts, print_list
from services.wire.dead_letter import DeadLetter

MANIFEST = "manifest.jsonl"
# How files of these kinds begin. What a producer calls its bytes is not believed.
_BEGINNINGS = (
    (b"\xff\xd8\xff", ".jpg"), (b"\x89PNG\r\n", ".png"), (b"GIF8", ".gif"), (b"BM", ".bmp"),
    (b"II*\x00", ".tiff"), (b"MM\x00*", ".tiff"), (b"{", ".json"),
)  # fmt: skip
# More names of cameras than this are only counted.
_MOST_CAMERAS = 1000


@dataclass
class Group:
    """Letters that have something in common; `cameras` are at most `_MOST_CAMERAS`."""

    count: int = 0
    judged: int = 0
    cameras: set[str] = field(default_factory=set)
    causes: set[str] = field(default_factory=set)
    first: datetime | None = None
    last: datetime | None = None

    def add(self, one: Found) -> None:
        """Count a letter."""
        letter = one.letter
        self.count += 1
        self.judged += one.is_judged is True
        if len(self.cameras) < _MOST_CAMERAS:
            self.cameras.add(letter.camera)
        self.causes.add(letter.cause)
        self.first = min(self.first or letter.failed_at, letter.failed_at)
        self.last = max(self.last or letter.failed_at, letter.failed_at)


def print_groups(console: Console, groups: dict[str, Group], by: str) -> None:
    """Print the groups, largest first; by cause each says what to do."""
    is_by_cause = by == "cause"
    columns = (
        Column(by),
        Column("letters", is_right=True),
        Column("judged since", is_right=True),
        Column("cameras" if is_by_cause else "causes", is_right=True),
        Column("first"),
        Column("last"),
        Column("", room=Room.BELOW),
    )
    rows = []
    for name, one in sorted(groups.items(), key=lambda item: -item[1].count):
        others = len(one.cameras) if is_by_cause else len(one.causes)
        told = HINTS.get(name, NO_HINT) if is_by_cause else ", ".join(sorted(one.causes))
        numbers = (str(one.count), str(one.judged), str(others))
        rows.append((name or "-", *numbers, _time(one.first), _time(one.last), Text(told, "dim")))
    print_list(console, columns, rows)


def print_letters(console: Console, found: Iterable[Found]) -> None:
    """Print letters, each with its reason."""
    columns = (
        Column("position"),
        Column("failed at"),
        Column("cause"),
        Column("camera"),
        Column("tries", is_right=True),
        Column("since", room=Room.BELOW),
        Column("frame", room=Room.BELOW),
        Column("", room=Room.BELOW),
    )
    rows = []
    for one in found:
        letter = one.letter
        # Text, not markup: these words are other people's.
        words = (one.place, _time(letter.failed_at), letter.cause, letter.camera, str(letter.tries))
        since = "judged" if one.is_judged else ""
        rows.append((*(Text(word) for word in (*words, since, letter.frame_id)), Text(letter.reason, "dim")))
    print_list(console, columns, rows)


def print_details(console: Console, one: Found) -> None:
    """Print everything of one letter."""
    letter = one.letter
    original = letter.position
    rows = {
        "position": one.place,
        "original": f"{original.topic}:{original.partition}:{original.offset}",
        "frame": letter.frame_id or "-",
        "camera": letter.camera or "-",
        "cause": letter.cause,
        "reason": letter.reason,
        "tries": str(letter.tries),
        "failed at": letter.failed_at.isoformat(),
        "bytes": str(one.size_bytes),
        **{f"header {name}": text for name, text in headers_of(letter).items()},
        "what to do": HINTS.get(letter.cause, NO_HINT),
    }
    print_facts(console, rows)


def facts_of(one: Found) -> dict[str, object]:
    """Return a letter as JSON tells it."""
    letter = one.letter
    return {
        "position": one.place,
        "frame_id": letter.frame_id,
        "camera": letter.camera,
        "cause": letter.cause,
        "reason": letter.reason,
        "tries": letter.tries,
        "failed_at": letter.failed_at.isoformat(),
        "topic": letter.position.topic,
        "partition": letter.position.partition,
        "offset": letter.position.offset,
        "bytes": one.size_bytes,
        "is_judged": one.is_judged,
    }


def headers_of(letter: DeadLetter) -> dict[str, str]:
    """Return the original's headers as text."""
    return {name: value.decode("utf-8", "backslashreplace") for name, value in letter.original.headers}


def export_letter(one: Found, folder: Path) -> Path | None:
    """Write the original's bytes and a line of the manifest; None where they lie there already.

    A file of the same name with other bytes stays, and this one gets another name.
    """
    data = one.letter.original.value
    name = re.sub(r"[^A-Za-z0-9.-]+", "_", f"{one.letter.camera}-{one.place}").lstrip(".-")[:150]
    for number in range(1, 1000):
        path = folder / f"{name}{'' if number == 1 else f'-{number}'}{suffix_of(data)}"
        try:
            with path.open("xb") as file:
                file.write(data)
        except FileExistsError:
            if path.read_bytes() == data:
                return None
            continue
        with (folder / MANIFEST).open("a", encoding="utf-8") as manifest:
            told = {"file": path.name, **facts_of(one), "headers": headers_of(one.letter)}
            manifest.write(json.dumps(told) + "\n")
        return path
    return None


def suffix_of(data: bytes) -> str:
    """Return what a file of these bytes is called; `.bin` where nothing tells."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return ".webp"
    return next((suffix for beginning, suffix in _BEGINNINGS if data.startswith(beginning)), ".bin")


def _time(time: datetime | None) -> str:
    return f"{time.astimezone():%m-%d %H:%M:%S}" if time else "-"
