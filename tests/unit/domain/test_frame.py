"""Frame ids: deterministic, never of the content."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.domain.frame import RecordPosition, frame_id_of, ingester_event_id, ingester_frame_id

POSITION = RecordPosition("loupe.frames", 2, 17)


def test_frame_id_prefers_the_event_id_over_sequence_and_position() -> None:
    by_event = frame_id_of(
        source="cam", event_id="e1", camera="cam", epoch="t", sequence=1, position=POSITION
    )
    again = frame_id_of(source="cam", event_id="e1", camera="cam", epoch="u", sequence=9, position=None)
    assert by_event == again


def test_frame_id_without_any_header_is_the_place_in_kafka() -> None:
    here = frame_id_of(source=None, event_id=None, camera="c", epoch=None, sequence=None, position=POSITION)
    there = frame_id_of(
        source=None,
        event_id=None,
        camera="c",
        epoch=None,
        sequence=None,
        position=RecordPosition("loupe.frames", 2, 18),
    )
    assert here != there


def test_frame_id_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="needs an event id"):
        frame_id_of(source="s", event_id=None, camera="c", epoch="e", sequence=None, position=None)


def test_ingester_frame_id_is_what_a_reader_derives_from_its_headers() -> None:
    event_id = ingester_event_id("2026-01-01T00:00:00+00:00", 4)
    derived = frame_id_of(
        source="cam", event_id=event_id, camera="cam", epoch="x", sequence=4, position=POSITION
    )
    assert derived == ingester_frame_id("cam", "2026-01-01T00:00:00+00:00", 4)


@given(
    st.lists(
        st.tuples(st.text(min_size=1, max_size=5), st.text(min_size=1, max_size=5), st.integers(0, 99)),
        unique=True,
        max_size=30,
    )
)
def test_ingester_frame_ids_never_collide(runs: list[tuple[str, str, int]]) -> None:
    # Epochs hold no slash (they are times), cameras no unit separator (it is not printable).
    clean = [(c, e, s) for c, e, s in runs if "/" not in e and "\x1f" not in c + e]
    assert len({ingester_frame_id(*run) for run in clean}) == len(clean)
