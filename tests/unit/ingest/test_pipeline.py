"""The ingester on a spool in a folder, a broker in memory and a clock that tests turn."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from threading import Event, Thread

import pytest

from services.adapters.broker.memory import MemoryBroker, MemoryProducer
from services.adapters.clock import FakeClock, SystemClock
from services.adapters.object_store.store import ObjectStore, memory_store
from services.domain.camera import CameraState, OriginalPolicy, ShedPolicy
from services.domain.errors import BadRequest, SourceUnavailable, StoreUnavailable, UnreadableImage
from services.domain.frame import ImageReference, ingester_frame_id
from services.domain.ledger import EntryKind, ShedReason
from services.domain.topics import CLAIM_LIMIT_BYTES, INLINE_LIMIT_BYTES, MIB
from services.ingest.pipeline import CameraSpec, Ingester, Progress, run_cameras
from services.ingest.sources import Settled, Shot, Skipped, Taken, Unreadable
from services.ingest.spool import Sender, Spool
from tests.poll import poll_until
from tests.unit.ingest.stage import FlakyProducer, Line, ListSource, declared, shot


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Line]:
    with Line(tmp_path) as opened:
        yield opened


def shots(count: int) -> list[Taken | None]:
    return [shot(number) for number in range(count)]


def camera(source: list[Taken | None], fps: float | None = 10.0, count: int | None = None) -> CameraSpec:
    return CameraSpec("cam-1", ListSource(source), fps, count=count)


def test_frames_carry_a_dense_sequence_one_epoch_and_the_bytes_as_they_are(line: Line) -> None:
    ended = line.film(camera(shots(7)))
    frames = line.frames()
    assert [frame.sequence for frame in frames] == list(range(7))
    assert {frame.epoch for frame in frames} == {ended.epoch}
    assert [frame.image for frame in frames] == [f"image {n}".encode() for n in range(7)]
    assert [frame.frame_id for frame in frames] == [
        ingester_frame_id("cam-1", ended.epoch, n) for n in range(7)
    ]
    assert (ended.captured, ended.acknowledged, ended.shed, ended.is_declared) == (7, 7, 0, True)
    assert (ended.spooled_frames, ended.spooled_bytes, ended.last_frame_at) == (0, 0, frames[-1].captured_at)


def test_capture_times_follow_the_rate_without_drift(line: Line) -> None:
    line.film(camera(shots(31), fps=30))
    times = [frame.captured_at for frame in line.frames()]
    # 30 intervals of 1/30 s; the fake clock counts whole microseconds.
    assert times[-1] - times[0] == pytest.approx(timedelta(seconds=1), abs=timedelta(milliseconds=1))


def test_without_a_rate_nothing_waits(line: Line) -> None:
    line.film(camera(shots(30), fps=None))
    assert len({frame.captured_at for frame in line.frames()}) == 1


def test_captured_frames_are_declared_about_every_second_and_at_the_end(line: Line) -> None:
    line.film(camera(shots(35)))
    entries = line.entries(EntryKind.CAPTURED)
    assert sorted(declared(entries)) == list(range(35))
    # 3.4 s at 10 frames/s: three entries under way, one at the beginning and one at the end.
    assert 3 <= len(entries) <= 5
    assert len({entry.entry_id for entry in entries}) == len(entries)


def test_unreadable_and_skipped_pictures_take_sequences_and_are_declared_shed(line: Line) -> None:
    told: list[Settled] = []
    source: list[Taken | None] = [
        shot(0),
        Unreadable("1.jpg", "Permission denied", told.append),
        Skipped(3),
        shot(5),
    ]
    ended = line.film(camera(source))
    assert [frame.sequence for frame in line.frames()] == [0, 5]
    shed = {entry.reason: declared([entry]) for entry in line.entries(EntryKind.SHED)}
    assert shed == {ShedReason.UNREADABLE_SOURCE: [1], ShedReason.SKIPPED: [2, 3, 4]}
    assert sorted(declared(line.entries(EntryKind.CAPTURED))) == list(range(6))
    assert ended.shed_by_reason == {ShedReason.UNREADABLE_SOURCE: 1, ShedReason.SKIPPED: 3}
    assert told == [Settled(ingester_frame_id("cam-1", ended.epoch, 1), ShedReason.UNREADABLE_SOURCE)]


def test_frames_that_the_producer_gives_up_or_refuses_are_sent_again_in_order(tmp_path: Path) -> None:
    broker = MemoryBroker()
    with Line(tmp_path, broker=broker, producer=FlakyProducer(broker, {2, 3}, {5})) as line:
        ended = line.film(camera(shots(6), fps=None))
        order = [frame.sequence or 0 for frame in line.frames()]
    assert set(order) == set(range(6))
    # Behind the last frame that was sent again nothing is out of order.
    assert order[-1] == 5
    assert line.entries(EntryKind.SHED) == []
    assert (ended.captured, ended.acknowledged, ended.shed, ended.is_declared) == (6, 6, 0, True)


def test_a_ledger_entry_that_was_not_taken_is_sent_again(tmp_path: Path) -> None:
    broker = MemoryBroker()
    # Record 0 is the frame; its entry is record 1, given up, and 2, refused; 3 arrives.
    with Line(tmp_path, broker=broker, producer=FlakyProducer(broker, {1}, {2})) as line:
        ended = line.film(camera([shot(0)]))
        assert declared(line.entries(EntryKind.CAPTURED)) == [0]
        assert ended.is_declared


def test_a_stop_ends_the_run_and_what_was_captured_is_declared(line: Line) -> None:
    ended = line.film(CameraSpec("cam-1", ListSource(shots(9), stop_after=4), 10))
    assert len(line.frames()) == ended.captured == 4
    assert sorted(declared(line.entries(EntryKind.CAPTURED))) == [0, 1, 2, 3]


def test_the_count_ends_the_run_and_idle_sources_cost_no_sequence(line: Line) -> None:
    ended = line.film(camera([None, shot(0), None, shot(1), shot(2)], count=2))
    assert ended.captured == len(line.frames()) == 2


def test_a_shot_is_settled_once_it_is_on_disk_and_never_captured_twice(line: Line) -> None:
    told: list[Settled] = []

    def file(name: str) -> Shot:
        return replace(shot(0, receipt=name), on_settled=told.append)

    first = line.film(camera([file("a.jpg|1"), file("b.jpg|1")]))
    second = line.film(camera([file("a.jpg|1"), file("a.jpg|2")]))
    assert [settled.frame_id for settled in told] == [
        ingester_frame_id("cam-1", first.epoch, 0),
        ingester_frame_id("cam-1", first.epoch, 1),
        ingester_frame_id("cam-1", first.epoch, 0),
        ingester_frame_id("cam-1", second.epoch, 0),
    ]
    assert (first.captured, second.captured, len(line.frames())) == (2, 1, 3)
    assert line.spool.captured_before("cam-1", "b.jpg|1") == told[1]
    assert line.spool.captured_before("cam-1", "c.jpg|1") is None
    assert line.spool.captured_before("cam-2", "b.jpg|1") is None


def test_an_unreadable_file_that_stays_is_declared_once(line: Line) -> None:
    told: list[Settled] = []
    file = Unreadable("a.jpg", "Permission denied", told.append, "a.jpg|1")
    first = line.film(camera([file]))
    second = line.film(camera([file]))
    assert (first.shed, second.captured) == (1, 0)
    assert told[0] == told[1] == line.spool.captured_before("cam-1", "a.jpg|1")


def test_a_shot_that_was_shed_stays_shed_when_it_is_shown_again(line: Line) -> None:
    told: list[Settled] = []
    huge = Shot(bytes(CLAIM_LIMIT_BYTES + 1), "image/bmp", "huge.bmp", receipt="huge", on_settled=told.append)
    line.film(camera([huge]), store=memory_store())
    ended = line.film(camera([huge]))
    assert [settled.shed for settled in told] == [ShedReason.TOO_LARGE] * 2
    assert told[0].frame_id == told[1].frame_id
    assert ended.captured == 0
    (entry,) = line.entries(EntryKind.SHED)
    assert (entry.reason, declared([entry])) == (ShedReason.TOO_LARGE, [0])


def test_an_image_above_the_inline_limit_goes_by_claim_check(line: Line) -> None:
    store = memory_store()
    large = Shot(bytes(INLINE_LIMIT_BYTES + 1), "image/bmp", "large.bmp")
    line.film(camera([large]), store=store)
    (frame,) = line.frames()
    assert frame.image == b""
    assert frame.dataref is not None
    assert store.get_image(frame.dataref) == large.image


@pytest.mark.parametrize(
    ("size_bytes", "is_inline"),
    [(INLINE_LIMIT_BYTES, True), (INLINE_LIMIT_BYTES + 1, False), (CLAIM_LIMIT_BYTES, False)],
)
def test_images_at_the_limits_arrive_whole(line: Line, size_bytes: int, is_inline: bool) -> None:
    store = memory_store()
    image = b"BM".ljust(size_bytes, b"\x7f")
    ended = line.film(camera([Shot(image, "image/bmp", "limit.bmp")]), store=store)
    (frame,) = line.frames()
    assert (frame.dataref is None) is is_inline
    assert (store.get_image(frame.dataref) if frame.dataref else frame.image) == image
    assert (ended.captured, ended.shed) == (1, 0)


def test_without_a_store_a_large_image_of_a_live_camera_is_declared_shed(line: Line) -> None:
    large = Shot(bytes(INLINE_LIMIT_BYTES + 1), "image/bmp", "large.bmp")
    line.film(replace(camera([large, shot(1)]), shed=ShedPolicy.DROP_OLDEST))
    (entry,) = line.entries(EntryKind.SHED)
    assert (declared([entry]), entry.reason) == ([0], ShedReason.STORE_UNAVAILABLE)
    assert [frame.sequence for frame in line.frames()] == [1]


class AwayStore(ObjectStore):
    """A store that is away for its first puts."""

    def __init__(self, away: int) -> None:
        super().__init__(memory_store()._files, "/memory")
        self.away = away

    def put_image(self, bucket: str, image: bytes) -> ImageReference:
        self.away -= 1
        if self.away >= 0:
            raise StoreUnavailable("away")
        return super().put_image(bucket, image)


def test_a_camera_that_can_wait_waits_for_the_store_and_a_live_one_not_for_long(line: Line) -> None:
    large = Shot(bytes(INLINE_LIMIT_BYTES + 1), "image/bmp", "large.bmp")
    waited = line.film(camera([large]), store=AwayStore(20))
    assert (waited.acknowledged, waited.shed) == (1, 0)
    live = replace(camera([large]), camera="cam-2", shed=ShedPolicy.DROP_OLDEST)
    # Pauses of 0.1, 0.2, ... 5 s: ten seconds are over after eight tries.
    assert line.film(live, store=AwayStore(3)).acknowledged == 1
    gone = line.film(live, store=AwayStore(99))
    assert gone.shed_by_reason == {ShedReason.STORE_UNAVAILABLE: 1}


@dataclass(frozen=True)
class Cropped:
    image: bytes
    content_type: str = "image/png"
    area: str = "0.1,0.2,0.5,0.5"


class Crop:
    """An edge step: cuts the first byte off."""

    def apply(self, image: bytes) -> Cropped | None:
        if image == b"garbage":
            raise UnreadableImage("no image")
        return None if image == b"small" else Cropped(image[1:])


def test_the_edge_publishes_a_part_and_keeps_originals_by_policy(line: Line) -> None:
    store = memory_store()
    pictures = [Shot(image, "image/jpeg", "x") for image in (b"abc", b"small", b"garbage")]
    spec = CameraSpec("cam-1", ListSource(pictures), edge=Crop(), keep_original=OriginalPolicy.ALL)
    line.film(spec, store=store)
    cropped, small, garbage = line.frames()
    assert (cropped.image, cropped.content_type, cropped.area) == (b"bc", "image/png", "0.1,0.2,0.5,0.5")
    assert cropped.original is not None
    assert store.get_image(cropped.original) == b"abc"
    assert [(frame.image, frame.area, frame.original) for frame in (small, garbage)] == [
        (b"small", None, None), (b"garbage", None, None),
    ]  # fmt: skip


def test_one_original_in_a_hundred_is_kept_when_asked_for_a_sample(line: Line) -> None:
    spec = CameraSpec("cam-1", ListSource(shots(201)), edge=Crop(), keep_original=OriginalPolicy.SAMPLE)
    line.film(spec, store=memory_store())
    assert [frame.sequence for frame in line.frames() if frame.original] == [0, 100, 200]


class Health:
    """Says `dark` of every second picture that it looks at."""

    def __init__(self) -> None:
        self.looked_s: list[float] = []

    def look(self, image: bytes, now_s: float) -> CameraState | None:  # noqa: ARG002  # the Protocol's
        self.looked_s.append(now_s)
        return CameraState.DARK if len(self.looked_s) % 2 else None


def test_pictures_are_looked_at_once_a_second(line: Line) -> None:
    health, told = Health(), list[Progress]()
    line.film(CameraSpec("cam-1", ListSource(shots(31)), 10, health=health), told.append)
    # 3 s at ten frames a second; the clock counts whole microseconds.
    assert len(health.looked_s) in (3, 4)
    assert {progress.picture for progress in told} == {CameraState.DARK, None}


class BrokenSource:
    """Gives a picture and goes away."""

    def shots(self, stop: Event) -> Iterator[Taken | None]:
        assert not stop.is_set()
        yield shot(0)
        raise SourceUnavailable("The camera does not answer.", CameraState.UNREACHABLE)


def test_a_source_that_goes_away_says_so_and_another_run_goes_on(line: Line) -> None:
    for _ in range(2):
        with pytest.raises(SourceUnavailable):
            line.film(CameraSpec("cam-1", BrokenSource()))
    line.drain()
    frames = line.frames()
    assert len(frames) == len({frame.frame_id for frame in frames}) == 2
    assert len({frame.epoch for frame in frames}) == 2


def test_a_full_disk_makes_a_camera_wait_and_costs_no_frame(line: Line) -> None:
    told: list[Progress] = []
    writer = line.spool._database._writer
    line.spool.camera("cam-0", ShedPolicy.BLOCK).close()
    (pages,) = writer.execute("PRAGMA page_count").fetchone()
    writer.execute(f"PRAGMA max_page_count={pages}")

    def see(progress: Progress) -> None:
        told.append(progress)
        if sum(one.is_disk_full for one in told) == 10:
            writer.execute("PRAGMA max_page_count=1000000")

    large = [Shot(bytes(100_000), "image/bmp", f"{number}.bmp") for number in range(3)]
    spec = CameraSpec("cam-1", ListSource(large), shed=ShedPolicy.DROP_OLDEST)
    ended = line.film(spec, see)
    assert any(one.is_disk_full for one in told)
    assert (ended.captured, ended.acknowledged, ended.shed, ended.is_disk_full) == (3, 3, 0, False)


def test_a_camera_that_can_wait_waits_for_room(tmp_path: Path) -> None:
    broker, clock = MemoryBroker(), SystemClock()
    spool = Spool(tmp_path, clock=clock, max_bytes=MIB, reserve_bytes=0)
    sender = Sender(spool, lambda: MemoryProducer(broker), clock)
    large = [Shot(bytes(400_000), "image/bmp", f"{number}.bmp") for number in range(12)]
    ingester, stop = Ingester(CameraSpec("cam", ListSource(large)), spool, clock), Event()
    run = Thread(target=ingester.run, args=(stop,))
    run.start()
    poll_until(lambda: ingester.progress().spooled_frames == 2, deadline_s=10)
    sender.start()
    run.join(20)
    assert not run.is_alive()
    assert sender.flush(10)
    ended = ingester.progress()
    assert (ended.captured, ended.acknowledged, ended.shed) == (12, 12, 0)
    sender.stop()
    spool.close()


def test_a_stop_ends_a_camera_that_waits_for_room(tmp_path: Path) -> None:
    clock = SystemClock()
    spool = Spool(tmp_path, clock=clock, max_bytes=MIB, reserve_bytes=0)
    large = [Shot(bytes(400_000), "image/bmp", f"{number}.bmp") for number in range(12)]
    ingester, stop = Ingester(CameraSpec("cam", ListSource(large)), spool, clock), Event()
    run = Thread(target=ingester.run, args=(stop,))
    run.start()
    poll_until(lambda: ingester.progress().spooled_frames == 2, deadline_s=10)
    stop.set()
    run.join(10)
    assert not run.is_alive()
    assert (ingester.progress().captured, ingester.progress().shed) == (2, 0)
    spool.close()


def test_runs_never_share_ids_even_when_the_clock_jumps_back_an_hour(tmp_path: Path) -> None:
    clock, broker, epochs = FakeClock(), MemoryBroker(), list[str]()
    for _ in range(3):
        with Line(tmp_path, clock=clock, broker=broker) as line:
            epochs.append(line.film(camera([shot(0)])).epoch)
        clock.jump(-3600)
    assert len({frame.frame_id for frame in line.frames()}) == 3
    assert epochs == sorted(set(epochs))


def test_progress_is_told_while_running(line: Line) -> None:
    told: list[Progress] = []
    line.film(camera(shots(21)), told.append)
    assert [p.captured for p in told] == sorted(p.captured for p in told)
    assert len(told) > 5
    assert told[-1].captured == 21
    assert told[-1].fps == pytest.approx(10, rel=0.1)


@pytest.mark.parametrize(
    ("camera", "fps", "count"), [("", 5, None), ("a\nb", 5, None), ("cam", 0, None), ("cam", -1, 2),
                                 ("cam", float("nan"), 1), ("cam", 1e6, None), ("cam", 5, 0)],
)  # fmt: skip
def test_a_camera_that_cannot_be_is_refused(camera: str, fps: float, count: int | None) -> None:
    with pytest.raises(BadRequest):
        CameraSpec(camera, ListSource([]), fps, count=count)


def test_two_cameras_of_one_id_are_refused_before_anything_is_sent(tmp_path: Path) -> None:
    spec = CameraSpec("cam-1", ListSource([]), 5)
    with pytest.raises(BadRequest, match="same id"):
        run_cameras([spec, spec], "127.0.0.1:1", Event(), spool_folder=tmp_path)
