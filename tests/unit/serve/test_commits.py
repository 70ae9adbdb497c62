"""Which offsets may be committed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from serve.commits import OffsetTracker
from services.adapters.broker import Partition

ONE, TWO = Partition("frames", 0), Partition("frames", 1)

offset_lists = st.lists(st.integers(0, 200), min_size=1, max_size=30, unique=True).map(sorted)


@given(offset_lists, st.randoms(use_true_random=False))
def test_never_beyond_the_first_that_is_not_done(offsets: list[int], random: object) -> None:
    tracker = OffsetTracker()
    for offset in offsets:
        tracker.begin(ONE, offset)
    left = list(offsets)
    random.shuffle(left)  # type: ignore[attr-defined]  # hypothesis' Random
    open_offsets = set(offsets)
    for offset in left:
        tracker.done(ONE, offset)
        open_offsets.remove(offset)
        next_offset = tracker.committable().get(ONE)
        if open_offsets:
            done_before = [o for o in offsets if o < min(open_offsets)]
            assert next_offset == (done_before[-1] + 1 if done_before else None)
    assert tracker.committable() == {ONE: offsets[-1] + 1}


def test_what_is_committed_is_not_committed_again() -> None:
    tracker = OffsetTracker()
    tracker.begin(ONE, 4)
    tracker.done(ONE, 4)
    tracker.committed({ONE: 5})
    assert tracker.committable() == {}


def test_partitions_are_apart() -> None:
    tracker = OffsetTracker()
    tracker.begin(ONE, 0)
    tracker.begin(TWO, 0)
    tracker.done(TWO, 0)
    assert tracker.committable() == {TWO: 1}


def test_a_revoked_partition_is_forgotten_and_late_ends_change_nothing() -> None:
    tracker = OffsetTracker()
    tracker.begin(ONE, 0)
    tracker.drop([ONE])
    tracker.done(ONE, 0)
    assert tracker.committable() == {}


def test_a_redelivered_record_starts_its_partition_anew() -> None:
    tracker = OffsetTracker()
    for offset in (0, 1, 2):
        tracker.begin(ONE, offset)
    tracker.done(ONE, 2)
    # Back after a rebalance from offset 1: the end of 2 was noted for the earlier delivery only.
    tracker.begin(ONE, 1)
    tracker.begin(ONE, 2)
    tracker.done(ONE, 1)
    assert tracker.committable() == {ONE: 2}
