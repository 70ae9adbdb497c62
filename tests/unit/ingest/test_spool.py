"""The spool by itself: whatever happens and in whatever order, every sequence ends as sent or as shed."""

from __future__ import annotations

import tempfile
from collections import defaultdict, deque
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.adapters.clock import FakeClock
from services.domain.camera import ShedPolicy
from services.domain.errors import BadRequest, BadSettings, Overloaded, StorageFull
from services.domain.frame import ingester_frame_id
from services.domain.ledger import EntryKind, LedgerEntry, SequenceRange, ShedReason
from services.domain.topics import FRAMES, MIB
from services.ingest.sources import Settled
from services.ingest.spool import CameraSpool, Leftover, Spool
from services.ingest.spool.lane import Spooled
from services.ingest.spool.outbox import OpenEntry
from services.wire.ledger import decode_ledger_entry
from services.wire.record import OutRecord

CAMERAS = ("left", "middle", "right")


def record(camera: CameraSpool, name: str, size_bytes: int) -> OutRecord:
    headers = (("epoch", camera.epoch.encode()), ("sequence", str(camera.next_sequence).encode()))
    return OutRecord(FRAMES.name, name.encode(), bytes(size_bytes), headers)


def number_of(spooled: Spooled) -> tuple[str, int]:
    headers = dict(spooled.record.headers)
    return headers["epoch"].decode(), int(headers["sequence"])


def kill(spool: Spool) -> None:
    """Let go of the folder as a process does that is killed: what waits for a commit is lost."""
    spool._database._waiting.clear()
    spool.close()


def open_spool(folder: Path, clock: FakeClock | None = None, max_bytes: int = 64 * MIB) -> Spool:
    return Spool(folder, clock=clock or FakeClock(), max_bytes=max_bytes, reserve_bytes=0)


def take_all(spool: Spool) -> list[Spooled]:
    found: list[Spooled] = []
    while waiting := spool.feed.waiting():
        spooled = spool.feed.take(waiting[0][0])
        assert spooled is not None
        found.append(spooled)
    return found


def declare_all(spool: Spool) -> list[LedgerEntry]:
    found: list[LedgerEntry] = []
    while True:
        spool.feed.declare()
        entry = spool.feed.take_entry()
        if entry is None:
            return found
        found.append(decode_ledger_entry(entry.record.value))
        spool.feed.acknowledge_entry(entry)


class World:
    """A spool, what was put into it, and a broker that keeps what it is sent."""

    def __init__(self, folder: Path, policies: tuple[ShedPolicy, ...]) -> None:
        self.folder, self.clock = folder, FakeClock()
        self.policies = dict(zip(CAMERAS, policies, strict=True))
        self.given: dict[str, set[tuple[str, int]]] = defaultdict(set)
        self.log: dict[str, list[tuple[str, int]]] = defaultdict(list)
        self.entries: list[LedgerEntry] = []
        self.on_their_way: deque[Spooled | OpenEntry] = deque()
        self.names: dict[int, str] = {}
        self.open()

    def open(self) -> None:
        self.spool = open_spool(self.folder, self.clock, MIB)
        # Processes die here, machines do not.
        self.spool._database._writer.execute("PRAGMA synchronous=OFF")
        self.cameras = {name: self.spool.camera(name, policy) for name, policy in self.policies.items()}
        self.names = {lane.number: lane.name for lane in self.spool._lanes.all()}

    def capture(self, name: str, sizes_bytes: list[int]) -> None:
        for size_bytes in sizes_bytes:
            self.capture_one(name, size_bytes)

    def capture_one(self, name: str, size_bytes: int) -> None:
        camera = self.cameras[name]
        sequence = camera.next_sequence
        try:
            camera.accept(record(camera, name, size_bytes))
        except Overloaded:
            assert camera.next_sequence == sequence
            return
        self.given[name].add((camera.epoch, sequence))

    def skip(self, name: str, count: int) -> None:
        camera = self.cameras[name]
        self.given[name] |= {(camera.epoch, camera.next_sequence + n) for n in range(count)}
        camera.shed(count, ShedReason.SKIPPED)

    def send(self, count: int) -> None:
        for _ in range(count):
            for number, _ in self.spool.feed.waiting():
                spooled = self.spool.feed.take(number)
                if spooled is not None:
                    self.on_their_way.append(spooled)

    def end(self, outcomes: list[tuple[bool, bool]]) -> None:
        """Let the oldest records on their way arrive or not, and the sender hear of it or of a failure."""
        for is_arrived, is_told in outcomes[: len(self.on_their_way)]:
            one = self.on_their_way.popleft()
            if is_arrived or is_told:
                self.arrive(one)
            if isinstance(one, Spooled):
                (self.spool.feed.acknowledge if is_told else self.spool.feed.give_up)(one)
            else:
                (self.spool.feed.acknowledge_entry if is_told else self.spool.feed.give_up_entry)(one)

    def arrive(self, one: Spooled | OpenEntry) -> None:
        if isinstance(one, Spooled):
            self.log[self.names[one.camera]].append(number_of(one))
        else:
            self.entries.append(decode_ledger_entry(one.record.value))

    def declare(self) -> None:
        self.spool.feed.declare()
        while (entry := self.spool.feed.take_entry()) is not None:
            self.on_their_way.append(entry)

    def crash(self, is_arrived: bool) -> None:
        for one in self.on_their_way:
            if is_arrived:
                self.arrive(one)
        self.on_their_way.clear()
        kill(self.spool)
        self.open()

    def jump(self, seconds: float) -> None:
        self.clock.jump(seconds)

    def drain(self) -> None:
        for _ in range(500):
            self.declare()
            self.send(1)
            self.end([(True, True)] * len(self.on_their_way))
            if self.spool.is_settled:
                return
        raise AssertionError("the spool did not become empty")

    def check(self) -> None:
        by_id = {entry.entry_id: entry for entry in self.entries}
        for name in CAMERAS:
            mine = [entry for entry in by_id.values() if entry.camera == name]
            captured = numbers(mine, EntryKind.CAPTURED)
            shed = numbers(mine, EntryKind.SHED)
            # Ranges of different entries never overlap: nothing is counted twice.
            assert len(captured) == len(set(captured))
            assert len(shed) == len(set(shed))
            assert set(captured) == self.given[name]
            assert set(shed) | set(self.log[name]) == self.given[name]
            assert not set(shed) & set(self.log[name])
            last = {number: at for at, number in enumerate(self.log[name]) if number not in shed}
            assert sorted(last, key=lambda number: last[number]) == sorted(last)


def numbers(entries: list[LedgerEntry], kind: EntryKind) -> list[tuple[str, int]]:
    return [
        (entry.epoch, n)
        for entry in entries
        if entry.kind is kind
        for span in entry.ranges
        for n in range(span.first, span.last + 1)
    ]


# A camera's share of the spool is 349 525 bytes.
SIZES = st.lists(st.one_of(st.integers(1, 1000), st.integers(100_000, 150_000)), min_size=1, max_size=5)
STEPS = st.one_of(
    st.tuples(st.just("capture"), st.sampled_from(CAMERAS), SIZES),
    st.tuples(st.just("skip"), st.sampled_from(CAMERAS), st.integers(1, 5)),
    st.tuples(st.just("send"), st.integers(1, 4)),
    st.tuples(st.just("end"), st.lists(st.tuples(st.booleans(), st.booleans()), max_size=6)),
    st.tuples(st.just("declare")),
    st.tuples(st.just("crash"), st.booleans()),
    st.tuples(st.just("jump"), st.floats(-4000, 4000)),
)


@settings(deadline=None, max_examples=50)
@given(
    policies=st.tuples(*[st.sampled_from(ShedPolicy)] * 3), steps=st.lists(STEPS, min_size=20, max_size=60)
)
def test_every_sequence_is_sent_or_shed_in_order_and_declared_once(
    policies: tuple[ShedPolicy, ...], steps: list[tuple[object, ...]]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder), policies)
        for name, *arguments in steps:
            getattr(world, str(name))(*arguments)
        world.drain()
        world.check()
        world.spool.close()


def test_a_full_share_waits_or_drops_by_policy(tmp_path: Path) -> None:
    # Four cameras share 1 MiB: each may have 256 KiB, that is two frames of 100 KB.
    spool = open_spool(tmp_path, max_bytes=MIB)
    cameras = {policy: spool.camera(policy.value, policy) for policy in ShedPolicy}
    shed = {
        policy: [camera.accept(record(camera, policy.value, 100_000)) for _ in range(2)]
        for policy, camera in cameras.items()
    }
    # A sampling camera lets every second one go while it is half full: the first two are below that.
    assert set(map(tuple, shed.values())) == {(None, None)}
    with pytest.raises(Overloaded):
        cameras[ShedPolicy.BLOCK].accept(record(cameras[ShedPolicy.BLOCK], "block", 100_000))
    oldest, newest = cameras[ShedPolicy.DROP_OLDEST], cameras[ShedPolicy.DROP_NEWEST]
    assert oldest.accept(record(oldest, "drop-oldest", 100_000)) is None
    assert newest.accept(record(newest, "drop-newest", 100_000)) is ShedReason.DROPPED_NEWEST
    left = {number_of(spooled)[1] for spooled in take_all(spool) if spooled.record.key == b"drop-oldest"}
    assert left == {1, 2}
    shed_ranges = {(e.camera, e.reason): e.ranges for e in declare_all(spool) if e.kind is EntryKind.SHED}
    assert shed_ranges == {
        ("drop-oldest", ShedReason.DROPPED_OLDEST): (SequenceRange(0, 0),),
        ("drop-newest", ShedReason.DROPPED_NEWEST): (SequenceRange(2, 2),),
    }
    spool.close()


def test_a_sampling_camera_sees_the_whole_outage(tmp_path: Path) -> None:
    spool = open_spool(tmp_path, max_bytes=16 * MIB)
    camera = spool.camera("cam", ShedPolicy.SAMPLE)
    for _ in range(2000):
        camera.accept(record(camera, "cam", 30_000))
    kept = [number_of(spooled)[1] for spooled in take_all(spool)]
    # Half of the room for all frames, a quarter for one in two, an eighth for one in four, ...
    first_half = 16 * MIB // 2 // 32_048
    assert kept[:first_half] == list(range(first_half))
    assert kept[-1] > 1500
    steps = {
        after - before for before, after in zip(kept[first_half + 2 :], kept[first_half + 3 :], strict=False)
    }
    assert steps >= {2, 4, 8}
    spool.close()


def test_frames_on_their_way_are_never_dropped(tmp_path: Path) -> None:
    spool = open_spool(tmp_path, max_bytes=MIB)
    camera = spool.camera("cam", ShedPolicy.DROP_OLDEST)
    for _ in range(3):
        camera.accept(record(camera, "cam", 300_000))
    (first, second, third) = take_all(spool)
    assert camera.accept(record(camera, "cam", 300_000)) is ShedReason.DROPPED_NEWEST
    for spooled in (first, second, third):
        spool.feed.acknowledge(spooled)
    assert camera.state().frames == 0
    assert camera.accept(record(camera, "cam", 300_000)) is None
    spool.close()


def test_what_may_have_arrived_before_a_restart_is_never_dropped(tmp_path: Path) -> None:
    spool = open_spool(tmp_path, max_bytes=MIB)
    camera = spool.camera("cam", ShedPolicy.DROP_OLDEST)
    for _ in range(3):
        camera.accept(record(camera, "cam", 300_000))
    sent = spool.feed.take(spool.feed.waiting()[0][0])
    assert sent is not None
    kill(spool)  # Kafka has the first, and nobody was left to hear of it.
    spool = open_spool(tmp_path, max_bytes=MIB)
    camera = spool.camera("cam", ShedPolicy.DROP_OLDEST)
    assert camera.accept(record(camera, "cam", 300_000)) is ShedReason.DROPPED_NEWEST
    assert number_of(sent) not in numbers(declare_all(spool), EntryKind.SHED)
    for spooled in take_all(spool):
        spool.feed.acknowledge(spooled)
    assert camera.accept(record(camera, "cam", 300_000)) is None
    spool.close()


def test_large_frames_of_many_cameras_wait_on_disk_and_not_in_memory(tmp_path: Path) -> None:
    names = [f"cam-{number}" for number in range(12)]

    def ready_bytes() -> int:
        return sum(lane.ready_bytes for lane in spool._lanes.all())

    spool = open_spool(tmp_path, max_bytes=512 * MIB)
    for camera in [spool.camera(name, ShedPolicy.BLOCK) for name in names]:
        for _ in range(2):
            camera.accept(record(camera, "cam", 8 * MIB))
    assert 0 < ready_bytes() <= 64 * MIB
    kill(spool)
    spool = open_spool(tmp_path, max_bytes=512 * MIB)
    for number, _ in spool.feed.waiting():
        spooled = spool.feed.take(number)
        assert spooled is not None
        assert ready_bytes() <= 64 * MIB
        spool.feed.acknowledge(spooled)
    assert sum(lane.frames for lane in spool._lanes.all()) == len(names)
    spool.close()


def test_a_frame_larger_than_the_share_is_kept_if_it_is_alone(tmp_path: Path) -> None:
    spool = open_spool(tmp_path, max_bytes=MIB)
    camera = spool.camera("cam", ShedPolicy.BLOCK)
    assert camera.accept(record(camera, "cam", 3 * MIB)) is None
    with pytest.raises(Overloaded):
        camera.accept(record(camera, "cam", 1))
    spool.close()


def test_what_an_earlier_run_left_is_told_and_sent_first_with_its_old_numbers(tmp_path: Path) -> None:
    clock = FakeClock()
    spool = open_spool(tmp_path, clock)
    camera, old = spool.camera("cam", ShedPolicy.BLOCK), ""
    for _ in range(3):
        camera.accept(record(camera, "cam", 1000), receipt=f"file {camera.next_sequence}")
    old = camera.epoch
    kill(spool)
    clock.jump(-3600)
    spool = open_spool(tmp_path, clock)
    assert spool.leftovers == (Leftover("cam", 3, 3 * 3048),)
    camera = spool.camera("cam", ShedPolicy.BLOCK)
    assert camera.captured_before("file 1") == Settled(ingester_frame_id("cam", old, 1))
    camera.accept(record(camera, "cam", 1000))
    assert camera.epoch > old
    assert [number_of(one) for one in take_all(spool)] == [(old, 0), (old, 1), (old, 2), (camera.epoch, 0)]
    entries = {entry.epoch: entry.ranges for entry in declare_all(spool)}
    assert entries == {old: (SequenceRange(0, 2),), camera.epoch: (SequenceRange(0, 0),)}
    spool.close()


def test_ages_are_known_across_a_restart(tmp_path: Path) -> None:
    clock = FakeClock()
    spool = open_spool(tmp_path, clock)
    camera = spool.camera("cam", ShedPolicy.BLOCK)
    camera.accept(record(camera, "cam", 1000))
    clock.advance(5)
    assert camera.state().oldest_s == pytest.approx(5)
    kill(spool)
    clock.advance(10)
    spool = open_spool(tmp_path, clock)
    assert spool.camera("cam", ShedPolicy.BLOCK).state().oldest_s == pytest.approx(15)
    spool.close()


def test_one_process_owns_a_spool_and_one_run_a_camera(tmp_path: Path) -> None:
    spool = open_spool(tmp_path)
    with pytest.raises(BadSettings, match="in use"):
        open_spool(tmp_path)
    camera = spool.camera("cam", ShedPolicy.BLOCK)
    with pytest.raises(BadRequest, match="runs already"):
        spool.camera("cam", ShedPolicy.BLOCK)
    camera.close()
    spool.camera("cam", ShedPolicy.BLOCK)
    spool.close()
    open_spool(tmp_path).close()


def test_a_disk_with_too_little_room_takes_nothing_and_loses_nothing(tmp_path: Path) -> None:
    spool = Spool(tmp_path, clock=FakeClock(), reserve_bytes=1 << 60)
    camera = spool.camera("cam", ShedPolicy.DROP_OLDEST)
    with pytest.raises(StorageFull, match="stay free"):
        camera.accept(record(camera, "cam", 1000))
    assert camera.next_sequence == 0
    spool.close()


def test_a_failed_drop_changes_nothing_and_frames_go_out_in_order(tmp_path: Path) -> None:
    spool = open_spool(tmp_path, max_bytes=MIB)
    camera = spool.camera("cam", ShedPolicy.DROP_OLDEST)
    for _ in range(3):
        camera.accept(record(camera, "cam", 300_000))
    writer = spool._database._writer
    (pages,) = writer.execute("PRAGMA page_count").fetchone()
    # As a disk does that has no more room than what is used.
    writer.execute(f"PRAGMA max_page_count={pages}")
    with pytest.raises(StorageFull):
        camera.accept(record(camera, "cam", 3 * MIB))
    assert (camera.next_sequence, camera.state().frames) == (3, 3)
    assert [number_of(one)[1] for one in take_all(spool)] == [0, 1, 2]
    writer.execute(f"PRAGMA max_page_count={1 << 30}")
    spool.close()


def test_a_damaged_spool_is_named(tmp_path: Path) -> None:
    (tmp_path / "spool.sqlite").write_bytes(b"not a database" * 1000)
    with pytest.raises(BadSettings, match="Move it away"):
        open_spool(tmp_path)
