"""Which pixels are kept, under which reference, and what happens while the object store is away."""

from __future__ import annotations

from dataclasses import replace

import pytest

from serve.archive import KEEP_ONE_IN, Archive, _Known
from serve.judging import End, Item, Judge
from services.adapters.clock import FakeClock
from services.adapters.object_store import ObjectStore, memory_store
from services.adapters.object_store.store import FRAMES_BUCKET
from services.domain.errors import StoreUnavailable
from services.domain.frame import ImageReference
from services.domain.hosting import ArchivePolicy, RetentionClass, Route
from services.domain.inspection import Inspection
from services.wire.frame import decode_frame
from tests.unit.serve.fakes import ANOMALOUS, BAD, FakeUnits, frame_record

ROUTE = Route("*", "plates")


class FlakyStore(ObjectStore):
    """Away for the first puts."""

    def __init__(self, failures: int) -> None:
        super().__init__(None)
        self.failures = failures
        self.kept: list[bytes] = []

    def put(self, uri: str, data: bytes) -> None:
        self.failures -= 1
        if self.failures >= 0:
            raise StoreUnavailable(f"{uri}: away.")
        self.kept.append(data)


def items(*images: bytes, route: Route = ROUTE) -> list[Item]:
    records = [frame_record(index, image) for index, image in enumerate(images)]
    return [Item(record, decode_frame(record), route) for record in records]


def judged(batch: list[Item]) -> list[End]:
    return Judge(FakeUnits(), memory_store(), FakeClock(), lambda _project, _seconds: False).judge(batch)


@pytest.mark.parametrize(
    ("policy", "kept"),
    [(ArchivePolicy.ALL, {0, 1}), (ArchivePolicy.NONE, set()), (ArchivePolicy.INTERESTING, {1})],
)
def test_pixels_are_kept_by_the_routes_policy(policy: ArchivePolicy, kept: set[int]) -> None:
    store = memory_store()
    # Frame 0 of this camera is none of the samples (its id is not divisible by 100).
    batch = items(b"good", ANOMALOUS, BAD, route=replace(ROUTE, archive=policy))
    ends, keeping = Archive(store, lambda _: False).begin(batch, judged(batch))
    keeping.wait()
    found = {n: end.image for n, end in enumerate(ends) if isinstance(end, Inspection) and end.image}
    assert set(found) == kept
    for n, reference in found.items():
        assert store.get_image(reference) == batch[n].frame.image


def test_the_pixels_of_a_claim_check_are_not_kept_twice() -> None:
    reference = memory_store().put_image(FRAMES_BUCKET, ANOMALOUS)
    one = items(ANOMALOUS)[0]
    claimed = replace(one, frame=replace(one.frame, dataref=reference, image=b""))
    (end,), keeping = Archive(store := FlakyStore(0), lambda _: False).begin([claimed], judged([one]))
    keeping.wait()
    assert isinstance(end, Inspection)
    assert end.image == reference
    assert store.kept == []


def test_the_same_sample_of_dull_frames_is_kept_every_time() -> None:
    batch = items(*[b"good"] * 1000)
    archive = Archive(memory_store(), lambda _: False)

    def kept() -> list[int]:
        ends, _ = archive.begin(batch, [end for one in batch for end in judged([one])])
        return [n for n, end in enumerate(ends) if isinstance(end, Inspection) and end.image]

    first = kept()
    assert first == kept()
    # Binomial(1000, 1/100): outside of 2 to 25 once in 10,000 sets of ids, and these are fixed.
    assert 2 <= len(first) <= 25
    assert KEEP_ONE_IN == 100


def test_the_verdict_does_not_wait_for_the_object_store_but_the_commit_does() -> None:
    pauses: list[float] = []

    def pause(seconds: float) -> bool:
        pauses.append(seconds)
        return True

    batch = items(ANOMALOUS)
    (end,), keeping = Archive(store := FlakyStore(3), pause).begin(batch, judged(batch))
    assert isinstance(end, Inspection)
    assert end.image is not None
    keeping.wait()
    assert store.kept == [ANOMALOUS]
    assert len(pauses) == 3


def test_a_stop_while_the_object_store_is_away_leaves_the_batch_undone() -> None:
    batch = items(ANOMALOUS)
    _, keeping = Archive(FlakyStore(99), lambda _: False).begin(batch, judged(batch))
    with pytest.raises(StoreUnavailable):
        keeping.wait()


def begun(archive: Archive, batch: list[Item]) -> Inspection:
    (end,), keeping = archive.begin(batch, judged(batch))
    keeping.wait()
    assert isinstance(end, Inspection)
    return end


def test_equal_images_are_put_once() -> None:
    store = FlakyStore(0)
    archive = Archive(store, lambda _: False)
    references = [begun(archive, items(image)).image for image in (ANOMALOUS, ANOMALOUS, ANOMALOUS + b"2")]
    assert store.kept == [ANOMALOUS, ANOMALOUS + b"2"]
    assert references[0] == references[1] != references[2]


def test_an_image_that_was_not_put_is_put_by_the_next_one() -> None:
    store = FlakyStore(1)
    archive = Archive(store, lambda _: False)
    _, keeping = archive.begin(batch := items(ANOMALOUS), judged(batch))
    with pytest.raises(StoreUnavailable):
        keeping.wait()
    begun(archive, items(ANOMALOUS))
    assert store.kept == [ANOMALOUS]


def test_what_is_known_to_be_kept_is_bounded() -> None:
    known = _Known()
    for number in range(5000):
        known.add(str(number))
    assert "0" not in known
    assert "4999" in known
    assert len(known._until_s) == 4096


@pytest.mark.parametrize("policy", [ArchivePolicy.ALL, ArchivePolicy.NONE])
def test_the_original_is_kept_as_long_as_the_image_or_not_at_all(policy: ArchivePolicy) -> None:
    original = ImageReference("s3://loupe-frames/sha256/aa/aa", "aa", 3)
    route = Route("*", "plates", archive=policy, retention=RetentionClass.LONG)
    one = items(b"good", route=route)[0]
    cropped = replace(one, frame=replace(one.frame, original=original, area="0,0,0.5,0.5"))
    end = begun(Archive(memory_store(), lambda _: False), [cropped])
    is_kept = policy is ArchivePolicy.ALL
    assert (end.image is not None) == is_kept
    assert (end.original, end.retention) == ((original, "long") if is_kept else (None, ""))
    assert end.area == "0,0,0.5,0.5"
