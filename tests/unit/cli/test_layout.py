"""Lists and facts at the widths of terminals: nothing is cut, and nothing is wider than it may be."""

from __future__ import annotations

import pytest
from rich.console import Console
from rich.text import Text

from services.cli.layout import Column, Room, open_console, print_below, print_facts, print_list

ID = "7c0c2b9e-58a1-5c6f-a6e2-4a56f1a1f6a3"
SENTENCE = "The bytes are not an image that can be decoded, so somebody has to look at the camera. " * 3
COLUMNS = (
    Column("camera"),
    Column("frames", is_right=True),
    Column("frame", room=Room.BELOW),
    Column("set by", room=Room.WIDE),
    Column("", room=Room.BELOW),
)


def shown(width: int, *rows: tuple[str, ...], is_terminal: bool = True) -> list[str]:
    console = Console(width=width, force_terminal=is_terminal, color_system=None)
    with console.capture() as caught:
        print_list(console, COLUMNS, rows)
    return caught.get().splitlines()


def test_all_stands_in_one_row_where_there_is_room() -> None:
    head, row = shown(120, ("press-1", "12", ID, "ada", "Well."))
    assert head.split() == ["camera", "frames", "frame", "set", "by"]
    assert row.split() == ["press-1", "12", ID, "ada", "Well."]
    assert head.index("frames") + len("frames") == row.index("12") + 2


def test_what_has_no_room_stands_below_and_the_rest_is_left_out() -> None:
    lines = shown(50, ("press-1", "12", ID, "ada", "Well."))
    assert lines == ["camera   frames", "press-1      12", f"    frame {ID}", "    Well."]


@pytest.mark.parametrize("width", [70, 80, 140])
def test_no_line_of_a_terminal_is_too_long_and_no_id_is_broken(width: int) -> None:
    rows = [(f"press-{n}", str(10**n), ID, "somebody with a long name", SENTENCE) for n in range(9)]
    lines = shown(width, *rows, ("a camera whose name is longer than any other", "1", "", "", ""))
    assert max(map(len, lines)) <= width
    assert sum(ID in line for line in lines) == 9
    assert "frames" in lines[0]


def test_a_long_key_has_its_own_line_and_does_not_widen_the_others() -> None:
    lines = shown(80, ("c" * 90, "1", "", "", ""), ("d", "2", "", "", ""))
    assert lines == ["camera  frames", "c" * 90, "             1", "d            2"]


def test_a_pipe_gets_sentences_whole() -> None:
    lines = shown(80, ("press-1", "12", "", "", SENTENCE), is_terminal=False)
    assert lines[2].strip() == SENTENCE.strip()


def test_columns_that_nobody_fills_are_left_out() -> None:
    assert shown(200, ("press-1", "12", "", "", ""))[0].split() == ["camera", "frames"]


def test_an_empty_list_is_its_headings() -> None:
    assert shown(80) == ["camera  frames"]


@pytest.mark.parametrize("is_terminal", [True, False])
def test_facts_go_on_below_their_beginning(is_terminal: bool) -> None:
    console = Console(width=80, force_terminal=is_terminal, color_system=None)
    with console.capture() as caught:
        print_facts(console, {"frame": ID, "reason": SENTENCE, "end": Text("[red]\nsecond")})
        print_below(console, SENTENCE)
    lines = caught.get().splitlines()
    assert lines[0] == f"frame   {ID}"
    assert (max(map(len, lines)) <= 80) is is_terminal
    assert " ".join(SENTENCE.split()) in " ".join(caught.get().split())
    assert "end     [red]" in lines
    assert "        second" in lines


def test_a_hash_beside_a_long_name_is_not_broken() -> None:
    console = Console(width=80, force_terminal=True, color_system=None)
    with console.capture() as caught:
        print_facts(console, {"header ce_datarefsha256": "a" * 64, "camera": "press-1"})
    lines = ["header ce_datarefsha256", "    " + "a" * 64, "camera" + " " * 19 + "press-1"]
    assert caught.get().splitlines() == lines


def test_a_sentence_is_not_folded_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    open_console().print(SENTENCE.strip())
    assert capsys.readouterr().out == SENTENCE.strip() + "\n"


def test_only_the_name_of_a_fact_is_dim() -> None:
    console = Console(width=80, force_terminal=True, color_system="standard", highlight=False)
    with console.capture() as shown:
        print_facts(console, {"project": "caps"})
    assert shown.get() == "\x1b[2mproject\x1b[0m  caps\n"
