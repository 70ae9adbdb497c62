"""What the trainer and hosting write, on SQLite and on PostgreSQL alike."""

from __future__ import annotations

import threading
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, update

from services.adapters.clock import FakeClock
from services.adapters.database import writing
from services.adapters.database.tables import model_versions
from services.adapters.object_store.store import memory_store
from services.domain.errors import BadRequest, UnknownProject
from services.domain.hosting import (
    ArchivePolicy,
    Hosting,
    HostingStatus,
    RetentionClass,
    Route,
    RouteMode,
)
from services.domain.label import Box, Label, Verdict, entry_id_of
from services.domain.model_version import JobState, TrainingRequest, VersionState
from services.hosting.pipeline import Host
from services.hosting.route_store import RouteStore
from services.hosting.store import HostingStore, Wish
from services.trainer.datasets import Datasets
from services.trainer.jobs import Jobs
from services.trainer.registry import Registry
from tests.unit.trainer.models import CREATED_AT, model_folder, promoted

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)


def test_versions(engine: Engine, tmp_path: Path) -> None:
    registry = Registry(engine, memory_store())
    for version, age_s in (("v2", 0), ("v1", 9)):
        made_at = CREATED_AT - timedelta(seconds=age_s)
        folder, manifest = model_folder(tmp_path, version=version, created_at=made_at)
        assert registry.register(folder, manifest, "t") == registry.register(folder, manifest, "t")
    with pytest.raises(UnknownProject, match="No version of plates was promoted yet"):
        registry.latest("plates")
    for version in ("v1", "v2"):
        record = registry.decide("plates", version, VersionState.PROMOTED, {"reasons": ["Good."]}, CREATED_AT)
        assert (record.state, record.reasons) == (VersionState.PROMOTED, ("Good.",))
    assert [one.version for one in registry.records("plates")] == ["v1", "v2"]
    assert registry.latest("plates").version == "v2"
    assert registry.latest("plates").created_at == CREATED_AT


def test_an_older_version_comes_back_by_promotion(engine: Engine, tmp_path: Path) -> None:
    registry, store = Registry(engine, memory_store()), HostingStore(engine)
    host = Host(store, FakeClock(CREATED_AT + timedelta(hours=1)), offered_units=2, default_units=1)
    v1, v2 = (
        promoted(registry, *model_folder(tmp_path, version=version, created_at=CREATED_AT + timedelta(n)))
        for n, version in enumerate(("v1", "v2"))
    )
    assert [host.announced(v1), host.announced(v2), host.announced(v1)] == [True, True, False]
    back = registry.promote("plates", "v1", author="ada", reason="", at=CREATED_AT + timedelta(3))
    assert back == v1 == registry.latest("plates")
    assert [host.announced(v2), host.announced(back), host.announced(v2)] == [False, True, False]
    (hosted,) = store.hosted()
    assert (hosted.hosting.version, hosted.model_promoted_at) == ("v1", CREATED_AT + timedelta(3))
    host.catch_up()
    assert store.hosted() == (hosted,)


def test_versions_from_before_there_were_candidates_serve(engine: Engine, tmp_path: Path) -> None:
    registry = Registry(engine, memory_store())
    said = registry.register(*model_folder(tmp_path))
    with writing(engine) as connection:  # as the migration leaves them
        connection.execute(update(model_versions).values(state="promoted", decided_at=None))
    assert registry.latest("plates") == said
    (model,) = HostingStore(engine).newest_models()
    assert (model.announcement, model.promoted_at) == (said, CREATED_AT)


def test_a_candidate_is_not_hosted(engine: Engine, tmp_path: Path) -> None:
    store = HostingStore(engine)
    host = Host(store, FakeClock(CREATED_AT), offered_units=2, default_units=1)
    said = Registry(engine, memory_store()).register(*model_folder(tmp_path))
    assert not host.announced(said)
    host.catch_up()
    assert store.hosted() == ()


def test_the_latest_label_wins(engine: Engine) -> None:
    store = memory_store()
    datasets = Datasets(engine, store)
    image = store.put_image("loupe-frames", b"pixels")
    entry_id = entry_id_of("plates", frame_id=None, sha256=image.sha256)
    said = Label(
        entry_id, "plates", AT, image, None, Verdict.ANOMALY, boxes=(Box(0.1, 0.2, 0.3, 0.4, "dent"),)
    )
    earlier = replace(said, labelled_at=AT - timedelta(1), verdict=Verdict.NORMAL)
    later = replace(said, labelled_at=AT + timedelta(1), verdict=Verdict.NORMAL)
    assert [datasets.store(one) for one in (said, said, earlier, later)] == [True, False, False, True]
    (entry,) = datasets.entries("plates")
    assert (entry.verdict, entry.labelled_at) == (Verdict.NORMAL, AT + timedelta(1))


def test_jobs(engine: Engine) -> None:
    jobs = Jobs(engine)
    request = TrainingRequest("t1", "plates", AT)
    assert jobs.queue(request) == jobs.queue(request)
    jobs.run("t1")
    jobs.finish("t1", "v1", "made", AT)
    assert (jobs.queue(request).state, jobs.get("t1").ended_at) == (JobState.DONE, AT)


def test_wishes_and_routes(engine: Engine, tmp_path: Path) -> None:
    store, clock = HostingStore(engine), FakeClock(CREATED_AT + timedelta(seconds=9))
    host = Host(store, clock, offered_units=2, default_units=1)
    said = promoted(Registry(engine, memory_store()), *model_folder(tmp_path))
    host.catch_up()
    assert not host.announced(said)
    store.wish([Wish(Hosting("bottles", "v1", "s3://m/v1"), by="ada", refused="no")], AT)
    store.note("plates", HostingStatus.HOSTED, "x" * 2000)
    first, last = store.hosted()
    assert (first.hosting.project, first.hosting.max_units, len(first.message)) == ("plates", 2, 1024)
    assert first.model_promoted_at == CREATED_AT
    assert (last.status, last.message, last.model_promoted_at) == (HostingStatus.HOSTING_FAILED, "no", None)


def test_routes(engine: Engine) -> None:
    store = RouteStore(engine)
    press = Route("press-*", "plates", RouteMode.SHADOW, deadline_s=2.0, retention=RetentionClass.LONG)
    everything = Route("*", "plates", priority=-1)
    for route in (press, everything):
        store.add(route, "ada", AT)
    with pytest.raises(BadRequest, match="There is a shadow route press-"):
        store.add(replace(press, deadline_s=None), "ben", AT)
    assert {one.route for one in store.all()} == {press, everything}
    assert {(one.changed_by, one.changed_at) for one in store.all()} == {("ada", AT)}

    changed = store.change(
        press, {"archive": ArchivePolicy.ALL, "deadline_s": None}, "ben", AT + timedelta(1)
    )
    assert changed == replace(press, archive=ArchivePolicy.ALL, deadline_s=None)
    with pytest.raises(BadRequest):
        store.change(press, {"share_ratio": 0.5}, "ben", AT)  # no canary, so nothing is kept of it
    with pytest.raises(BadRequest):
        store.change(replace(press, project="bottles"), {"priority": 1}, "ben", AT)
    by = {one.route.mode: (one.route, one.changed_by) for one in store.all()}
    assert by[RouteMode.SHADOW] == (changed, "ben")

    assert store.remove("press-*", "plates") == (changed,)
    with pytest.raises(BadRequest):
        store.remove("*", "plates", RouteMode.CANARY)
    assert store.remove("*", "plates", RouteMode.LIVE) == (everything,)
    assert store.all() == ()


def test_of_many_who_set_one_route_one_does(engine: Engine) -> None:
    def add(name: str) -> None:
        with suppress(BadRequest):
            RouteStore(engine).add(Route("*", "plates"), name, AT)
            winners.append(name)

    winners: list[str] = []
    threads = [threading.Thread(target=add, args=(f"writer-{n}",)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    (stored,) = RouteStore(engine).all()
    assert winners == [stored.changed_by]
