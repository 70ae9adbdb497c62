"""The equation captured = judged + quarantined + shed."""

from __future__ import annotations

from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from services.domain.frame import ingester_frame_id, ingester_frame_ids, sequences_among
from services.domain.ledger import CameraBalance, SequenceRange, all_balanced, balance_of, ids_of_ranges

A, B, C, D = (UUID(int=n) for n in range(1, 5))
NONE: frozenset[UUID] = frozenset()
ids = st.sets(st.integers(0, 40).map(lambda n: UUID(int=n)), max_size=40)


def test_balance_names_the_frame_that_nobody_saw_again() -> None:
    balance = balance_of(declared={A, B, C, D}, observed={A}, judged={A}, quarantined={B}, shed={C})
    assert (balance.captured, balance.judged, balance.quarantined, balance.shed) == (4, 1, 1, 1)
    assert balance.missing == (D,)
    assert not balance.is_balanced


def test_balance_counts_a_frame_with_two_ends_once_at_its_strongest() -> None:
    balance = balance_of(declared={A}, observed={A}, judged={A}, quarantined={A}, shed={A})
    assert (balance.captured, balance.judged, balance.quarantined, balance.shed) == (1, 1, 0, 0)
    assert balance.is_balanced


@given(ids, ids, ids, ids, ids)
def test_balance_holds_exactly_when_nothing_is_missing(
    declared: set[UUID], observed: set[UUID], judged: set[UUID], quarantined: set[UUID], shed: set[UUID]
) -> None:
    balance = balance_of(
        declared=declared, observed=observed, judged=judged, quarantined=quarantined, shed=shed
    )
    ended = balance.judged + balance.quarantined + balance.shed
    assert balance.captured == ended + len(balance.missing)
    assert set(balance.missing) == (declared | observed) - (judged | quarantined | shed)


def test_ids_of_ranges_are_those_the_readers_derive() -> None:
    found = ids_of_ranges("cam", "e", [SequenceRange(0, 1), SequenceRange(5, 5)])
    assert found == {ingester_frame_id("cam", "e", n) for n in (0, 1, 5)}


def test_all_balanced_needs_every_camera() -> None:
    good = balance_of(declared={A}, observed=NONE, judged={A}, quarantined=NONE, shed=NONE)
    bad = balance_of(declared={B}, observed=NONE, judged=NONE, quarantined=NONE, shed=NONE)
    assert all_balanced({"a": good})
    assert not all_balanced({"a": good, "b": bad})


def test_ids_of_many_sequences_are_the_ids_of_each() -> None:
    camera, epoch = "line 1/cäm", "2026-01-01T00:00:00.000000+00:00"
    each = [ingester_frame_id(camera, epoch, sequence) for sequence in (0, 9, 10, 1 << 40)]
    assert list(ingester_frame_ids(camera, epoch, (0, 9, 10, 1 << 40))) == each
    assert list(sequences_among({each[1], A}, camera, epoch, range(100))) == [9]


def test_what_is_missing_is_counted_beyond_what_is_named() -> None:
    balance = CameraBalance(captured=12, judged=10, quarantined=0, shed=0, missing=(A,), unnamed=1)
    assert balance.missing_count == 2
    assert not balance.is_balanced
