"""Policies: what is due when, asked for once."""

# ruff: noqa: ARG002 - the fakes have the signatures of what they stand for

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import ClassVar

import pytest
from sqlalchemy import Engine

from services.adapters.broker.memory import MemoryBroker, MemoryProducer
from services.adapters.clock import FakeClock
from services.adapters.object_store import ObjectStore
from services.adapters.object_store.store import folder_store
from services.domain.errors import BadRequest, DatabaseUnavailable
from services.domain.label import Label, Verdict, entry_id_of
from services.domain.model_version import DEFAULT_OPTIONS, FitOptions
from services.domain.topics import TRAINING
from services.trainer.dataset_versions import DatasetVersions, snapshot_of
from services.trainer.datasets import Changes, Datasets
from services.trainer.jobs import Jobs
from services.trainer.policies import QUIET_S, Policies, Policy, PolicyWatch, request_due
from services.wire.training import decode_training_request

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
QUIET = timedelta(seconds=QUIET_S)
AFTER_3 = Policy("plates", 3, None, FitOptions(tiles=2), "ada", AT - timedelta(days=9))
NIGHTLY = replace(AFTER_3, after_labels=None, nightly_at="02:30")


def test_so_many_labels_are_due_once_they_have_been_quiet() -> None:
    changes = Changes(3, AT)
    assert request_due(AFTER_3, changes, None, AT + QUIET / 2) is None
    assert request_due(AFTER_3, Changes(2, AT), None, AT + QUIET) is None
    due = request_due(AFTER_3, changes, None, AT + QUIET)
    assert due is not None
    assert (due.project, due.trigger, due.author, due.options.tiles) == ("plates", "labels", "ada", 2)
    assert due.training_id.startswith("plates-labels-")


def test_labels_that_never_pause_are_not_waited_for_for_ever(watch: Watch) -> None:
    watch.policies.put(AFTER_3)
    asked_after_s = []
    for number in range(130):
        watch.label(b"%d" % number)
        watch.clock.advance(10)
        if watch.look():
            asked_after_s.append(10 * (number + 1))
            watch.train()
    assert asked_after_s == [600, 1210]


def test_a_night_comes_while_labels_do_not_pause() -> None:
    policy = replace(AFTER_3, nightly_at="12:00")
    due = request_due(policy, Changes(3, AT), None, AT + QUIET / 2)
    assert due is not None
    assert due.trigger == "nightly"


def test_another_time_of_day_is_another_night() -> None:
    seen_at, later = AT - timedelta(hours=6), replace(NIGHTLY, nightly_at="12:00")
    first = request_due(NIGHTLY, Changes(1, AT), AT - timedelta(days=1), AT)
    second = request_due(later, Changes(1, AT), seen_at, AT)
    assert first is not None
    assert second is not None
    assert first.training_id != second.training_id


def test_the_same_labels_are_the_same_training_and_others_another() -> None:
    first, later, more, next_time = (
        request_due(AFTER_3, changes, seen_at, AT + timedelta(seconds=wait_s))
        for changes, seen_at, wait_s in (
            (Changes(3, AT), None, 31),
            (Changes(3, AT), None, 3600),
            (Changes(4, AT + timedelta(seconds=1)), None, 3600),
            (Changes(3, AT), AT - timedelta(hours=1), 31),
        )
    )
    assert first is not None
    assert later is not None
    assert first.training_id == later.training_id
    assert len({one.training_id for one in (first, more, next_time) if one}) == 3


@pytest.mark.parametrize(
    ("now", "seen", "is_due"),
    [
        ("2026-03-02T02:29", None, False),  # set the afternoon before the first night
        ("2026-03-02T02:30", None, True),
        ("2026-03-02T09:00", None, True),  # the trainer was down at night
        ("2026-03-02T09:00", "2026-03-01T20:00", True),
        ("2026-03-02T09:00", "2026-03-02T02:30", False),
        ("2026-03-03T02:30", "2026-03-02T02:30", True),
    ],
)
def test_a_night_is_due_once(now: str, seen: str | None, is_due: bool) -> None:
    policy = replace(NIGHTLY, changed_at=AT)
    seen_at = datetime.fromisoformat(f"{seen}+00:00") if seen else None
    due = request_due(policy, Changes(1, AT), seen_at, datetime.fromisoformat(f"{now}+00:00"))
    assert (due is not None) is is_due
    if due is not None:
        assert due.training_id == f"plates-nightly-{now[:10].replace('-', '')}-0230"


def test_a_night_without_new_labels_trains_nothing() -> None:
    assert request_due(NIGHTLY, Changes(0, None), AT - timedelta(days=1), AT) is None


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"after_labels": 0}, "After 0 labels makes no sense"),
        ({"nightly_at": "24:00"}, "no time of day; write HH:MM"),
        ({"nightly_at": "2:30"}, "no time of day"),
        ({"after_labels": None}, "needs a number of labels or a time of day"),
        ({"project": "../x"}, "cannot be a project's name"),
    ],
)
def test_nonsense_is_refused(engine: Engine, change: dict[str, object], sentence: str) -> None:
    with pytest.raises(BadRequest, match=sentence):
        Policies(engine).put(replace(AFTER_3, **change))  # type: ignore[arg-type]  # fields by name


def test_a_policy_is_set_changed_and_removed(engine: Engine) -> None:
    policies = Policies(engine)
    policies.put(AFTER_3)
    changed = replace(NIGHTLY, options=FitOptions(families=("memory",), budget_ms=10.0), changed_by="ben")
    policies.put(changed)
    assert policies.all() == (changed,)
    assert policies.remove("plates")
    assert not policies.remove("plates")
    assert policies.all() == ()


class Watch:
    """A watch on a store of labels."""

    def __init__(self, engine: Engine, store: ObjectStore) -> None:
        self.clock = FakeClock(AT)
        self.store = store
        self.broker = MemoryBroker(partitions=1)
        self.datasets = Datasets(engine, store, self.clock)
        self.versions = DatasetVersions(engine, store)
        self.jobs = Jobs(engine)
        self.policies = Policies(engine)
        self.engine = engine

    def look(self) -> int:
        """Look as a process that has just started."""
        producer = MemoryProducer(self.broker)
        return len(PolicyWatch(self.policies, self.datasets, self.jobs, producer, self.clock).look())

    def label(self, *names: bytes) -> None:
        for name in names:
            image = self.store.put_image("loupe-frames", name)
            entry_id = entry_id_of("plates", frame_id=None, sha256=image.sha256)
            said = Label(entry_id, "plates", self.clock.now(), image, None, Verdict.NORMAL)
            assert self.datasets.store(said)

    def train(self) -> None:
        """Do what the trainer does with the request that came last."""
        request = decode_training_request(self.broker.records(TRAINING.name)[-1])
        self.jobs.run(request.training_id)
        seen = snapshot_of(self.datasets.all_entries("plates"))
        self.versions.write("plates", seen, self.clock.now())
        self.jobs.finish(request.training_id, "v1", "made", self.clock.now())


@pytest.fixture
def watch(engine: Engine, tmp_path: Path) -> Watch:
    return Watch(engine, folder_store(tmp_path / "s3"))


def test_without_a_policy_nothing_is_asked_for(watch: Watch) -> None:
    watch.label(b"1", b"2", b"3")
    watch.clock.advance(3600)
    assert watch.look() == 0


def test_a_burst_of_labels_makes_one_training_and_the_next_counts_from_there(watch: Watch) -> None:
    watch.policies.put(AFTER_3)
    for number in range(6):
        watch.label(b"%d" % number)
        watch.clock.advance(10)
        assert watch.look() == 0
    watch.clock.advance(QUIET_S)
    assert watch.look() == 1
    assert watch.look() == 0  # another trainer, or this one after a kill
    watch.train()
    watch.clock.advance(3600)
    assert watch.look() == 0
    watch.label(b"6", b"7")
    watch.clock.advance(QUIET_S)
    assert watch.look() == 0
    watch.label(b"8")
    watch.clock.advance(QUIET_S)
    assert watch.look() == 1
    first, second = watch.broker.records(TRAINING.name)
    assert decode_training_request(first).training_id != decode_training_request(second).training_id


def test_killed_after_asking_and_before_noting_it_asks_for_the_same(watch: Watch) -> None:
    class KilledJobs(Jobs):
        def queue(self, request: object) -> object:  # type: ignore[override]
            raise SystemExit

    watch.policies.put(AFTER_3)
    watch.label(b"1", b"2", b"3")
    watch.clock.advance(QUIET_S)
    producer = MemoryProducer(watch.broker)
    dying = PolicyWatch(watch.policies, watch.datasets, KilledJobs(watch.engine), producer, watch.clock)
    with pytest.raises(SystemExit):
        dying.look()
    assert watch.look() == 1
    first, again = map(decode_training_request, watch.broker.records(TRAINING.name))
    assert first.training_id == again.training_id
    assert first.options == replace(DEFAULT_OPTIONS, tiles=2)


class ThreeLooks(threading.Event):
    """Says stop at the fourth look."""

    looks = 0

    def wait(self, timeout: float | None = None) -> bool:
        self.looks += 1
        return self.looks > 3


def test_one_bad_moment_does_not_end_all_policies(watch: Watch) -> None:
    class BadMoments(Policies):
        errors: ClassVar[list[Exception]] = [DatabaseUnavailable("away"), ValueError("odd row")]

        def all(self) -> tuple[Policy, ...]:
            if self.errors:
                raise self.errors.pop(0)
            return super().all()

    watch.policies.put(AFTER_3)
    watch.label(b"1", b"2", b"3")
    watch.clock.advance(QUIET_S)
    producer = MemoryProducer(watch.broker)
    policies = BadMoments(watch.engine)
    PolicyWatch(policies, watch.datasets, watch.jobs, producer, watch.clock).run(ThreeLooks())
    assert len(watch.broker.records(TRAINING.name)) == 1


def test_what_was_cancelled_is_not_asked_for_again_until_labels_come(watch: Watch) -> None:
    watch.policies.put(AFTER_3)
    watch.label(b"1", b"2", b"3")
    watch.clock.advance(QUIET_S)
    assert watch.look() == 1
    (job,) = watch.jobs.all("plates")
    watch.jobs.cancel(job.training_id, "ada", watch.clock.now())
    assert watch.look() == 0
    watch.label(b"4")
    watch.clock.advance(QUIET_S)
    assert watch.look() == 1
