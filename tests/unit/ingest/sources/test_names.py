"""Part and lot out of names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from threading import Event

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.domain.errors import BadRequest
from services.ingest.sources.names import NamedSource, NameRule
from services.ingest.sources.protocol import Shot, Skipped, Taken, Unreadable

BOTH = r"(?P<lot_id>L\d+)_(?P<part_id>P\d+)"


@pytest.mark.parametrize(
    ("pattern", "name", "part_id", "lot_id"),
    [
        (BOTH, "L7_P123.png", "P123", "L7"),
        (BOTH, "line-1/2026/xL7_P123_top.png", "P123", "L7"),
        (BOTH, "P123.png", None, None),
        (r"(?P<part_id>P\d+)", "P1_P2.jpg", "P1", None),
        (r"(?P<lot_id>\d{4})(_(?P<part_id>\w+))?\.jpg", "1234.jpg", None, "1234"),
        (r"(?P<part_id>.*)", "", None, None),
        (r"(?P<part_id>[^.]*)", "a\x00b\n.jpg", "ab", None),
    ],
)
def test_ids_are_found_anywhere_in_a_name(
    pattern: str, name: str, part_id: str | None, lot_id: str | None
) -> None:
    assert NameRule(pattern).find(name) == (part_id, lot_id)


@pytest.mark.parametrize(
    ("pattern", "says"),
    [
        ("(", "no regular expression"),
        (r"P\d+", "no group part_id or lot_id"),
        (r"(?P<part>P\d+)", "no group part_id or lot_id"),
        ("(?P<part_id>x)" + "a" * 500, "at most 500"),
        ("(?P<part_id>a{99999999999})", "no regular expression"),
        ("", "no group"),
    ],
)
def test_a_pattern_that_finds_nothing_is_refused_with_an_example(pattern: str, says: str) -> None:
    with pytest.raises(BadRequest, match=says) as refused:
        NameRule(pattern)
    assert "L7_P123.png" in str(refused.value) or "at most" in says


@given(
    st.from_regex(r"[A-Za-z0-9-]{1,40}", fullmatch=True), st.from_regex(r"\d{1,9}", fullmatch=True), st.text()
)
def test_what_is_put_into_a_name_is_found_in_it(part: str, lot: str, after: str) -> None:
    rule = NameRule(r"^(?P<lot_id>\d+)_(?P<part_id>[A-Za-z0-9-]+)\.")
    name = f"{lot}_{part}.{after}"
    assert rule.find(name) == (part, lot)


@given(st.text(max_size=300), st.text(max_size=300))
def test_any_pattern_and_name_give_ids_or_a_refusal(pattern: str, name: str) -> None:
    try:
        rule = NameRule(f"(?P<part_id>{re.escape(pattern)})")
    except BadRequest:
        assert len(re.escape(pattern)) > 480
        return
    part_id, lot_id = rule.find(name)
    assert lot_id is None
    assert part_id is None or (part_id.isprintable() and 0 < len(part_id) <= 128)


class Fixed:
    """Gives what it was made with."""

    def __init__(self, *taken: Taken) -> None:
        self._taken = taken

    def shots(self, stop: Event) -> Iterator[Taken | None]:  # noqa: ARG002  # the Protocol's
        yield from self._taken


def test_ids_that_a_shot_has_already_win() -> None:
    bare = Shot(b"1", "image/png", "L7_P123.png")
    named = Shot(b"2", "image/png", "L8_P9.png", part_id="own")
    others = Unreadable("L7_P1.png", "gone"), Skipped(2)
    first, second, third, fourth = NamedSource(Fixed(bare, named, *others), NameRule(BOTH)).shots(Event())
    assert isinstance(first, Shot)
    assert isinstance(second, Shot)
    assert (first.part_id, first.lot_id) == ("P123", "L7")
    assert (second.part_id, second.lot_id) == ("own", "L8")
    assert (third, fourth) == others
