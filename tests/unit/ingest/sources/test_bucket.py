"""A bucket's prefix on the memory store: what is taken, in which order, and where it goes."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from threading import Event
from uuid import uuid4

import pytest

from services.adapters.object_store import ObjectEntry, ObjectStore, memory_store
from services.domain.camera import CameraState
from services.domain.errors import BadRequest, SourceUnavailable, StoreUnavailable
from services.domain.ledger import ShedReason
from services.domain.topics import CLAIM_LIMIT_BYTES
from services.ingest.sources.bucket import MOVING, READ_AHEAD, BucketSource
from services.ingest.sources.protocol import Settled, Shot, Taken, Unreadable
from tests.poll import poll_until

ACCEPTED = Settled(uuid4())
PREFIX = "s3://plant/line-1"


def take(shots: Iterator[Taken | None], count: int, *, settle: bool = True) -> list[Taken]:
    """Return the next `count` pictures of a source, each settled at once."""
    end_s, taken = time.monotonic() + 15, list[Taken]()
    while len(taken) < count:
        assert time.monotonic() < end_s, f"{len(taken)} of {count}"
        one = next(shots)
        if one is not None:
            taken.append(one)
            if settle and isinstance(one, Shot | Unreadable):
                one.on_settled(ACCEPTED)
    return taken


def listed(store: ObjectStore) -> list[str]:
    """Return all keys below the prefix, without days."""
    parts = (uri.removeprefix(f"{PREFIX}/").split("/") for uri in store.list(PREFIX))
    return sorted("/".join(part for part in one if not part.startswith("20")) for one in parts)


def becomes(store: ObjectStore, shots: Iterator[Taken | None], keys: list[str]) -> None:
    """Let a source move away what was settled until these keys are there; there is nothing else to take."""
    poll_until(lambda: (next(shots), listed(store) == keys) == (None, True), deadline_s=10, what=f"{keys}")


def test_objects_come_in_order_and_move_when_they_are_settled() -> None:
    store = memory_store()
    for name in ("b.jpg", "sub/a.png", "notes.txt", ".hidden.jpg", "done/old.jpg"):
        store.put(f"{PREFIX}/{name}", name.encode())
    shots = BucketSource(store, PREFIX).shots(Event())
    first, second = take(shots, 2)
    assert isinstance(first, Shot)
    assert isinstance(second, Shot)
    assert (first.subject, first.image, first.content_type) == ("b.jpg", b"b.jpg", "image/jpeg")
    assert (second.subject, second.content_type) == ("sub/a.png", "image/png")
    becomes(store, shots, [".hidden.jpg", "done/b.jpg", "done/old.jpg", "done/sub/a.png", "notes.txt"])


def test_an_object_stays_until_its_frame_is_settled_and_is_not_taken_twice() -> None:
    store = memory_store()
    store.put(f"{PREFIX}/a.jpg", b"1")
    shots = BucketSource(store, PREFIX).shots(Event())
    (first,) = take(shots, 1, settle=False)
    store.put(f"{PREFIX}/b.jpg", b"2")
    (second,) = take(shots, 1)
    assert isinstance(second, Shot)
    assert second.subject == "b.jpg"
    assert isinstance(first, Shot)
    first.on_settled(Settled(uuid4(), ShedReason.DROPPED_OLDEST))
    becomes(store, shots, ["done/b.jpg", "failed/a.jpg", "failed/a.jpg.reason.txt"])


def test_an_object_that_was_replaced_is_taken_again_and_not_moved_unseen() -> None:
    store = memory_store()
    store.put(f"{PREFIX}/a.jpg", b"1")
    shots = BucketSource(store, PREFIX).shots(Event())
    (first,) = take(shots, 1, settle=False)
    store.put(f"{PREFIX}/a.jpg", b"22")
    assert isinstance(first, Shot)
    first.on_settled(ACCEPTED)
    (second,) = take(shots, 1)
    assert isinstance(second, Shot)
    assert second.image == b"22"
    assert second.receipt != first.receipt


def test_equal_names_do_not_overwrite_each_other() -> None:
    store = memory_store()
    shots = BucketSource(store, PREFIX).shots(Event())
    for image in (b"1", b"22", b"333"):
        store.put(f"{PREFIX}/a.jpg", image)
        take(shots, 1)
        poll_until(lambda: (next(shots), not store.exists(f"{PREFIX}/a.jpg"))[1], deadline_s=10)
    assert {store.get(uri) for uri in store.list(f"{PREFIX}/done")} == {b"1", b"22", b"333"}


def test_kept_objects_stay_and_are_taken_once() -> None:
    store = memory_store()
    store.put(f"{PREFIX}/a.jpg", b"1")
    source = BucketSource(store, PREFIX, keeps_files=True)
    take(source.shots(Event()), 1)
    store.put(f"{PREFIX}/b.jpg", b"2")
    (second,) = take(source.shots(Event()), 1)
    assert isinstance(second, Shot)
    assert second.subject == "b.jpg"
    assert listed(store) == ["a.jpg", "b.jpg"]


def test_what_was_captured_by_an_ingester_that_died_is_moved_unread() -> None:
    store = memory_store()
    store.put(f"{PREFIX}/a.jpg", b"1")
    (shot,) = take(BucketSource(store, PREFIX).shots(Event()), 1, settle=False)
    assert isinstance(shot, Shot)
    store.put(f"{PREFIX}/b.jpg", b"2")
    journal = {shot.receipt: ACCEPTED}
    shots = BucketSource(store, PREFIX, captured_before=journal.get).shots(Event())
    (other,) = take(shots, 1)
    assert isinstance(other, Shot)
    assert other.subject == "b.jpg"
    becomes(store, shots, ["done/a.jpg", "done/b.jpg"])


def test_an_object_that_is_gone_is_declared_and_the_next_one_is_taken() -> None:
    store = memory_store()
    count = READ_AHEAD + 3
    for number in range(count):
        store.put(f"{PREFIX}/{number}.jpg", b"1")
    shots = BucketSource(store, PREFIX).shots(Event())
    take(shots, 1)
    store.delete(f"{PREFIX}/{count - 2}.jpg")
    *_, gone, there = take(shots, count - 1)
    assert isinstance(gone, Unreadable)
    assert (gone.subject, gone.reason) == (f"{count - 2}.jpg", "It was gone before it could be read.")
    assert isinstance(there, Shot)
    becomes(store, shots, [f"done/{number}.jpg" for number in range(count) if number != count - 2])


def test_an_object_that_is_put_back_is_taken_again() -> None:
    store = memory_store()
    store.put(f"{PREFIX}/a.jpg", b"1")
    (first,) = take(BucketSource(store, PREFIX).shots(Event()), 1, settle=False)
    assert isinstance(first, Shot)
    store.put(f"{PREFIX}/a.jpg", b"1")
    journal = {first.receipt: ACCEPTED}
    assert len(take(BucketSource(store, PREFIX, captured_before=journal.get).shots(Event()), 1)) == 1


def test_many_objects_that_were_captured_before_move_without_being_read() -> None:
    store = Store()
    for number in range(3 * MOVING):
        store.put(f"{PREFIX}/n{number:02d}.jpg", b"1")
    shots = BucketSource(store, PREFIX, captured_before=lambda _: ACCEPTED).shots(Event())
    becomes(store, shots, [f"done/n{number:02d}.jpg" for number in range(3 * MOVING)])
    assert not store.is_read


class Store(ObjectStore):
    """A memory store whose answers can be bent."""

    def __init__(self) -> None:
        inner = memory_store()
        super().__init__(inner._files, inner._root)
        self.refuses_moves = self.is_read = False
        self.claimed_size: int | None = None

    def move(self, uri: str, to_uri: str, *, etag: str) -> None:
        if self.refuses_moves:
            raise StoreUnavailable(f"{uri} could not be moved: Access Denied", is_refused=True)
        super().move(uri, to_uri, etag=etag)

    def get(self, uri: str) -> bytes:
        self.is_read = True
        return super().get(uri)

    def entries(self, prefix_uri: str, *, skip: Collection[str] = ()) -> Iterator[ObjectEntry]:
        for entry in super().entries(prefix_uri, skip=skip):
            yield ObjectEntry(entry.uri, self.claimed_size or entry.size_bytes, entry.modified_at, entry.etag)


def test_an_object_that_is_too_large_fails_with_the_numbers() -> None:
    store = Store()
    store.put(f"{PREFIX}/a.tif", b"1")
    store.claimed_size = CLAIM_LIMIT_BYTES + 1
    shots = BucketSource(store, PREFIX).shots(Event())
    (one,) = take(shots, 1)
    assert isinstance(one, Unreadable)
    assert one.reason == "It has 104.9 MB, at most 104.9 MB are taken."
    assert one.shed is ShedReason.TOO_LARGE
    becomes(store, shots, ["failed/a.tif", "failed/a.tif.reason.txt"])


def test_keys_that_may_not_move_are_told_and_nothing_is_taken_twice() -> None:
    store = Store()
    store.put(f"{PREFIX}/a.jpg", b"1")
    store.refuses_moves = True
    source = BucketSource(store, PREFIX)
    shots = source.shots(Event())
    take(shots, 1)
    with pytest.raises(
        SourceUnavailable, match=r"a\.jpg could not be moved.*right to write and delete"
    ) as told:
        becomes(store, shots, [])
    assert told.value.state == CameraState.UNAUTHORIZED
    store.refuses_moves = False
    store.put(f"{PREFIX}/b.jpg", b"2")
    shots = source.shots(Event())
    (second,) = take(shots, 1)
    assert isinstance(second, Shot)
    assert second.subject == "b.jpg"
    becomes(store, shots, ["done/a.jpg", "done/b.jpg"])


def test_a_bucket_that_is_gone_is_told() -> None:
    with pytest.raises(SourceUnavailable, match="no bucket plant") as gone:
        next(BucketSource(memory_store(), PREFIX).shots(Event()))
    assert gone.value.state == CameraState.SOURCE_GONE
    with pytest.raises(BadRequest, match="not an address"):
        next(BucketSource(memory_store(), "s3://B ad/x").shots(Event()))
