"""Which version is served: switched without a gap, kept when the new one fails."""

from __future__ import annotations

import numpy as np
import pytest

from serve.model_watch import HEALTH_INTERVAL_S, ModelWatch, WantedVersion
from services.adapters.clock import FakeClock
from services.adapters.object_store import ObjectStore
from services.adapters.triton.memory import MemoryTriton
from services.domain.errors import CorruptModel, ModelUnavailable
from tests.poll import poll_until

BATCH = np.full((1, 16, 16, 3), 255, np.uint8)


def wanted(version: str) -> WantedVersion:
    return WantedVersion("plates", version, f"s3://loupe-models/plates/{version}")


def served(watch: ModelWatch) -> str:
    with watch.current() as model:
        model.infer(BATCH)
        return model.manifest.version


def test_the_first_version_is_there_when_follow_returns(watch: ModelWatch) -> None:
    watch.follow(wanted("v1"))
    assert served(watch) == "v1"


def test_nothing_is_served_before(watch: ModelWatch) -> None:
    with pytest.raises(ModelUnavailable), watch.current():
        pass


def test_a_first_version_that_cannot_be_served_is_an_error(watch: ModelWatch, server: MemoryTriton) -> None:
    with pytest.raises(CorruptModel):
        watch.follow(wanted("v3"))
    assert server.loaded() == frozenset()


def test_a_new_version_takes_over_and_the_old_one_goes(watch: ModelWatch, server: MemoryTriton) -> None:
    watch.follow(wanted("v1"))
    watch.follow(wanted("v2"))
    watch.switch()
    assert served(watch) == "v2"
    (name,) = server.loaded()
    assert name.startswith("plates.v2.")


def test_a_broken_new_version_leaves_the_old_one_in_place(watch: ModelWatch, server: MemoryTriton) -> None:
    watch.follow(wanted("v1"))
    watch.follow(wanted("v3"))
    with pytest.raises(CorruptModel):
        watch.switch()
    assert served(watch) == "v1"
    assert len(server.loaded()) == 1


def test_the_old_version_stays_until_its_last_call_ends(watch: ModelWatch) -> None:
    watch.start()
    try:
        watch.follow(wanted("v1"))
        with watch.current() as old:
            watch.follow(wanted("v2"))
            poll_until(lambda: served(watch) == "v2", deadline_s=10)
            old.infer(BATCH)
    finally:
        watch.close()


def test_switches_by_itself_and_back_again(watch: ModelWatch, server: MemoryTriton) -> None:
    watch.start()
    try:
        for version in ("v1", "v2", "v1"):
            watch.follow(wanted(version))
            poll_until(lambda version=version: served(watch) == version, deadline_s=10)  # type: ignore[misc]
        assert watch.is_watching
    finally:
        watch.close()
    assert server.loaded() == frozenset()


def test_goes_back_to_a_version_after_a_failed_one(watch: ModelWatch, server: MemoryTriton) -> None:
    watch.start()
    try:
        watch.follow(wanted("v1"))
        watch.follow(wanted("v3"))
        watch.follow(wanted("v2"))
        poll_until(lambda: served(watch) == "v2", deadline_s=10)
    finally:
        watch.close()


def test_heals_a_dead_stub_by_itself(watch: ModelWatch, server: MemoryTriton) -> None:
    watch.follow(wanted("v1"))
    (name,) = server.loaded()
    server.crash(name)
    with watch.current() as model, pytest.raises(Exception, match="failed while it judged"):
        model.infer(BATCH)
    watch.tend()
    assert served(watch) == "v1"


def test_tells_for_how_long_it_could_not_heal(
    watch: ModelWatch, server: MemoryTriton, clock: FakeClock, store: ObjectStore
) -> None:
    watch.follow(wanted("v1"))
    server.is_up = False
    clock.advance(HEALTH_INTERVAL_S)
    watch.tend()
    clock.advance(100)
    # While the server itself is away, a new replica could do no better.
    assert watch.unhealthy_s == 0
    server.is_up = True
    assert watch.unhealthy_s == pytest.approx(100)
    watch.tend()
    assert watch.unhealthy_s == 0
