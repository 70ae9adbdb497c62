"""Cameras and leases do the same in SQLite and PostgreSQL."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine, select, update

from services.adapters.database import reading, writing
from services.adapters.database.tables import camera_states, cameras
from services.domain.camera import Area, Camera, CameraState, OriginalPolicy, ShedPolicy
from services.domain.errors import BadRequest
from services.ingest.camera_rows import CameraReport, StoredCamera
from services.ingest.camera_store import CameraStore
from tests.poll import poll_until

FULL = Camera(
    camera="press-1", source="rtsp://10.0.0.7/main", fps=2.5, project="plates", loop=True, is_triggered=True,
    area=Area(0.1, 0.2, 0.3, 0.4), longest_side_px=640, keep_original=OriginalPolicy.ALL,
    name_pattern=r"(?P<part_id>\d+)", keeps_files=True, silent_after_s=9.0, shed=ShedPolicy.BLOCK,
)  # fmt: skip


@pytest.fixture
def store(engine: Engine) -> CameraStore:
    """A store whose leases last, as far as a test is concerned, for ever."""
    return CameraStore(engine, lease_s=600)


def some(count: int, **options: object) -> list[StoredCamera]:
    return [
        StoredCamera(Camera(f"cam-{number:05}", "synthetic", **options))  # type: ignore[arg-type]
        for number in range(count)
    ]


def report(camera: str, state: CameraState, **values: object) -> CameraReport:
    return CameraReport(camera, state, "as told", datetime.now(UTC), **values)  # type: ignore[arg-type]


def test_a_camera_comes_back_as_it_was_added(store: CameraStore) -> None:
    store.add([StoredCamera(FULL, "user:hush", "ab" * 32)], by="ann")
    found = store.cameras()["press-1"]
    assert found.camera == FULL
    assert (found.secret, found.push_token_sha256) == ("user:hush", "ab" * 32)
    assert "hush" not in repr(found)
    (listed,) = store.listed()
    assert (listed.report.state, listed.ingester) == (CameraState.NEW, None)
    assert "hush" not in repr(listed)


def test_options_of_another_version_do_no_harm(store: CameraStore, engine: Engine) -> None:
    store.add(some(1), by="ann")
    strange = {"shed": "burn", "keep_original": 7, "area": {"x": 1}, "zoom": 3, "fps": 2.0}
    with writing(engine) as connection:
        connection.execute(update(cameras).values(options=strange))
    assert store.cameras()["cam-00000"].camera == Camera("cam-00000", "synthetic", fps=2.0)
    store.take("a", 5)
    with writing(engine) as connection:
        connection.execute(update(camera_states).values(state="melting"))
    assert store.listed()[0].report.state is CameraState.FAILED


def test_an_id_that_exists_is_refused_and_nothing_is_added(store: CameraStore) -> None:
    store.add(some(2), by="ann")
    with pytest.raises(BadRequest, match="cam-00001"):
        store.add([StoredCamera(Camera("new", "synthetic")), *some(2)], by="ann")
    with pytest.raises(BadRequest, match="cam-00007"):
        store.add([StoredCamera(Camera("cam-00007", "synthetic"))] * 2, by="ann")
    assert list(store.cameras()) == ["cam-00000", "cam-00001"]


def test_every_change_shows_in_the_version_even_when_the_clock_goes_back(
    store: CameraStore, engine: Engine
) -> None:
    store.add(some(2), by="ann")
    with writing(engine) as connection:  # the last change was made by a clock that was an hour ahead
        connection.execute(update(cameras).values(changed_at=datetime.now(UTC) + timedelta(hours=1)))
    seen = {store.version()}
    store.pause(["cam-00000"], "ann", is_paused=True)
    seen.add(store.version())
    store.change(StoredCamera(Camera("cam-00001", "push:")), "ann")
    seen.add(store.version())
    store.remove(["cam-00000"])
    seen.add(store.version())
    assert len(seen) == 4
    assert store.cameras()["cam-00001"].camera.source == "push:"


@pytest.mark.parametrize(
    "act",
    [
        lambda store: store.pause(["cam-00000", "none"], "ann", is_paused=True),
        lambda store: store.remove(["cam-00000", "none"]),
        lambda store: store.change(StoredCamera(Camera("none", "push:")), "ann"),
    ],
    ids=["pause", "remove", "change"],
)
def test_an_unknown_camera_is_a_sentence_and_nothing_changes(
    store: CameraStore, act: Callable[[CameraStore], None]
) -> None:
    store.add(some(1), by="ann")
    with pytest.raises(BadRequest, match="No camera is called none"):
        act(store)
    assert not store.cameras()["cam-00000"].camera.is_paused


def test_two_ingesters_never_hold_one_camera(store: CameraStore, engine: Engine) -> None:
    store.add(some(200), by="ann")
    taken: dict[str, set[str]] = {name: set() for name in ("a", "b", "c")}
    begin = threading.Barrier(len(taken))

    def take(name: str) -> None:
        mine = CameraStore(engine, lease_s=600)
        begin.wait(10)
        # Somebody wins every round, so 200 / 11 rounds are enough.
        for _ in range(25):
            taken[name] |= set(mine.take(name, 11))

    threads = [threading.Thread(target=take, args=(name,)) for name in taken]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sum(len(names) for names in taken.values()) == 200
    assert set.union(*taken.values()) == {f"cam-{n:05}" for n in range(200)}
    assert taken["a"] == store.renew("a")


def test_only_cameras_that_are_to_run_and_are_ones_own_are_taken(store: CameraStore) -> None:
    store.add(some(3), by="ann")
    store.pause(["cam-00001"], "ann", is_paused=True)
    assert store.take("a", 10, is_mine=lambda name: name != "cam-00002").keys() == {"cam-00000"}


def test_a_lease_that_ran_out_is_taken_and_its_owner_hears_of_it(engine: Engine) -> None:
    short, other = CameraStore(engine, lease_s=0.2), CameraStore(engine, lease_s=600)
    other.add(some(1), by="ann")
    assert set(short.take("dead", 5)) == {"cam-00000"}
    poll_until(lambda: set(other.take("b", 5)) == {"cam-00000"}, deadline_s=10, what="the lease ran out")
    assert short.renew("dead", [report("cam-00000", CameraState.RUNNING)]) == set()
    (listed,) = other.listed()
    assert (listed.ingester, listed.report.state) == ("b", CameraState.NEW)
    assert other.holders(["cam-00000", "none"]) == {"cam-00000": "b"}


def test_an_ingester_that_comes_late_keeps_what_nobody_took(engine: Engine) -> None:
    store = CameraStore(engine, lease_s=0.1)
    store.add(some(1), by="ann")
    store.take("a", 5)
    poll_until(lambda: store.listed()[0].ingester is None, deadline_s=10, what="the lease ran out")
    assert store.renew("a") == {"cam-00000"}


def test_a_lease_from_a_clock_that_was_ahead_ends_in_time(engine: Engine) -> None:
    store = CameraStore(engine, lease_s=0.2)
    store.add(some(1), by="ann")
    store.take("dead", 5)
    with writing(engine) as connection:
        connection.execute(update(camera_states).values(lease_until=datetime.now(UTC) + timedelta(hours=1)))
    assert store.take("b", 5) == {}
    poll_until(lambda: store.take("b", 5), deadline_s=10, what="the lease was cut short")


def test_what_is_told_is_listed(store: CameraStore) -> None:
    store.add(some(3), by="ann")
    store.take("a", 2)
    told = report(
        "cam-00000", CameraState.SPOOLING, epoch="e", captured=7, acknowledged=5, shed=1, spooled=2, fps=2.5,
        last_frame_at=datetime(2026, 1, 1, tzinfo=UTC),
    )  # fmt: skip
    store.renew("a", [told, report("cam-00002", CameraState.RUNNING)])
    first, second, third = store.listed()
    assert first.report == told
    assert (first.ingester, second.report.state, third.report.state) == (
        "a", CameraState.NEW, CameraState.WAITING,
    )  # fmt: skip
    assert [one.report.camera for one in store.listed("cam-00000")] == ["cam-00000"]


def test_a_camera_that_ended_is_not_taken_until_it_is_changed(store: CameraStore) -> None:
    store.add(some(1), by="ann")
    store.take("a", 5)
    configured_at = store.cameras()["cam-00000"].changed_at
    store.let_go("a", [report("cam-00000", CameraState.ENDED, configured_at=configured_at)])
    assert store.take("a", 5) == store.take("b", 5) == {}
    assert store.listed()[0].report.state is CameraState.ENDED
    store.pause(["cam-00000"], "ann", is_paused=False)
    assert set(store.take("b", 5)) == {"cam-00000"}
    assert store.listed()[0].report.state is CameraState.NEW


def test_a_camera_let_go_is_free_and_a_paused_one_says_so(store: CameraStore) -> None:
    store.add(some(2), by="ann")
    store.take("a", 5)
    store.pause(["cam-00000"], "ann", is_paused=True)
    store.let_go("a", [report("cam-00000", CameraState.PAUSED), report("cam-00001", CameraState.RUNNING)])
    assert [one.report.state for one in store.listed()] == [CameraState.PAUSED, CameraState.NEW]
    assert store.listed()[1].report.message == "No ingester runs. Last told: running."
    assert set(store.take("b", 5)) == {"cam-00001"}


def test_a_removed_camera_is_held_until_its_ingester_has_stopped(store: CameraStore, engine: Engine) -> None:
    store.add(some(1), by="ann")
    store.take("a", 5)
    store.remove(["cam-00000"])
    assert store.listed() == []
    store.add(some(1), by="ann")
    assert store.take("b", 5) == {}
    store.remove(["cam-00000"])
    store.let_go("a", [report("cam-00000", CameraState.PAUSED)])
    with reading(engine) as connection:
        assert connection.execute(select(camera_states)).all() == []


def test_a_restarted_ingester_takes_its_cameras_again(store: CameraStore) -> None:
    store.add(some(2), by="ann")
    assert len(store.take("a", 5)) == 2
    told = report("cam-00001", CameraState.DARK, captured=7)
    store.renew("a", [told])
    store.let_all_go("a")
    found = store.take("a", 5)
    assert (found["cam-00000"].state, found["cam-00001"]) == (CameraState.NEW, told)


@pytest.mark.timeout(120)
def test_ten_thousand_cameras_are_one_transaction_each_way(store: CameraStore) -> None:
    store.add(some(10_000), by="ann")
    assert len(store.take("a", 20_000)) == 10_000
    told = [report(f"cam-{number:05}", CameraState.UNREACHABLE) for number in range(10_000)]
    assert len(store.renew("a", told)) == 10_000
    assert {one.report.state for one in store.listed()} == {CameraState.UNREACHABLE}
