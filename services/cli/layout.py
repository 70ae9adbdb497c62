"""How the commands lay out lists, facts and sentences: whole words, numbers and ids at any width.

Columns are as wide as what stands in them. What has no room in the row stands below it; a key that is too
long for its column has a line of its own. Sentences are folded on a terminal only: the lines of a pipe are
for grep. Colours no text by its content and knows no command.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto

from rich.console import Console
from rich.text import Text

Cell = str | Text
_GAP = 2
_INDENT = 4
# Shorter keys are never moved to a line of their own.
_LEAST_KEY = 12
# On narrower terminals words are broken.
_LEAST_SENTENCE = 24


class Room(Enum):
    """What becomes of a column where lines are too short for all of them."""

    ALWAYS = auto()
    BELOW = auto()  # told below the row, behind its name
    WIDE = auto()  # left out; JSON has it


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a list; the first one of a list holds its keys."""

    name: str
    is_right: bool = False
    room: Room = Room.ALWAYS


def open_console(*, stderr: bool = False) -> Console:
    """Return a console that folds sentences on a terminal only."""
    is_terminal = (sys.stderr if stderr else sys.stdout).isatty()
    return Console(stderr=stderr, highlight=False, soft_wrap=not is_terminal)


def print_list(console: Console, columns: Sequence[Column], rows: Iterable[Sequence[Cell]]) -> None:
    """Print rows below their headings; columns that may be left out are, where nobody fills them."""
    cells = [[_text(cell) for cell in row] for row in rows]
    shown, below = _placed(columns, cells, console.width)
    names = [columns[n].name for n in shown]
    lines = [[row[n] for n in shown] for row in cells]
    widths = [max([len(name), *(row[place].cell_len for row in lines)]) for place, name in enumerate(names)]
    widths[0] = _key_width(len(names[0]), lines, console.width - sum(widths[1:]) - _GAP * (len(shown) - 1))
    is_right = [columns[n].is_right for n in shown]
    _print_whole(console, _row([Text(name) for name in names], widths, is_right), "dim")
    for row, line in zip(cells, lines, strict=True):
        if line[0].cell_len > widths[0]:
            _print_whole(console, line[0])
            line = [Text(), *line[1:]]
        _print_whole(console, _row(line, widths, is_right))
        for n in below:
            if row[n].plain:
                name = f"{columns[n].name} " if columns[n].name else ""
                print_below(console, Text.assemble((name, "dim"), row[n]))


def print_facts(console: Console, facts: Mapping[str, Cell]) -> None:
    """Print a line per fact; what does not fit goes on below its beginning, a long word below the name."""
    width = max((len(name) for name in facts), default=0) + _GAP
    for name, value in facts.items():
        text = _text(value)
        if console.is_terminal and max(map(len, text.plain.split()), default=0) > console.width - width:
            _print_whole(console, Text(name, "dim"))
            print_below(console, text)
            continue
        for number, line in enumerate(_folded(console, text, width)):
            # A span, not the style of the whole line: the value is joined to it.
            head = Text.assemble((name if number == 0 else "", "dim"))
            head.pad_right(width - head.cell_len)
            _print_whole(console, head + line)


def print_below(console: Console, text: Cell) -> None:
    """Print a sentence that belongs to the row above it."""
    for line in _folded(console, _text(text), _INDENT):
        _print_whole(console, Text(" " * _INDENT) + line)


def _placed(
    columns: Sequence[Column], rows: Sequence[Sequence[Text]], width: int
) -> tuple[list[int], list[int]]:
    """Return which columns stand in the row, and which below it."""
    widest = [max((row[n].cell_len for row in rows), default=0) for n in range(len(columns))]
    is_free = [column.room is not Room.ALWAYS for column in columns]
    shown = [n for n in range(len(columns)) if widest[n] or not is_free[n]]
    needs = {n: max(widest[n], len(columns[n].name)) + _GAP for n in shown}
    if shown and shown[0] == 0:
        needs[0] = min(needs[0], max(_LEAST_KEY, width // 3) + _GAP)
    below: list[int] = []
    for room in (Room.WIDE, Room.BELOW):
        for n in reversed([n for n in shown if columns[n].room is room]):
            if sum(needs[m] for m in shown) - _GAP > width:
                shown.remove(n)
                below += [n] if room is Room.BELOW else []
    return shown, sorted(below)


def _key_width(heading: int, rows: Sequence[Sequence[Text]], room: int) -> int:
    """Return the width of the first column: its longest key that leaves the others their room."""
    most = max(_LEAST_KEY, heading, room)
    return max([heading, *(row[0].cell_len for row in rows if row[0].cell_len <= most)])


def _row(cells: Sequence[Text], widths: Sequence[int], is_right: Sequence[bool]) -> Text:
    line = Text()
    for cell, width, right in zip(cells, widths, is_right, strict=True):
        space = " " * max(0, width - cell.cell_len)
        line += Text(space) + cell if right else cell + Text(space)
        line.append(" " * _GAP)
    line.rstrip()
    return line


def _folded(console: Console, text: Text, indent: int) -> Iterator[Text]:
    """Yield a text's lines, on a terminal none longer than it leaves beside `indent`."""
    for line in text.split(allow_blank=True):
        if console.is_terminal:
            yield from line.wrap(console, max(_LEAST_SENTENCE, console.width - indent))
        else:
            yield line


def _print_whole(console: Console, line: Text, style: str = "") -> None:
    console.print(line, style=style, soft_wrap=True)


def _text(cell: Cell) -> Text:
    return cell if isinstance(cell, Text) else Text(cell)
