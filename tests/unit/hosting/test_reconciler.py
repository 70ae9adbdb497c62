"""Converging: put once, read back, wait out Ray, begin again after a new head."""

from __future__ import annotations

import copy
import threading
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import Engine

from services.adapters.metrics import Metrics
from services.domain.errors import ModelUnavailable, Rejected
from services.domain.hosting import ArchivePolicy, Hosting, HostingStatus, Route
from services.hosting.reconciler import Reconciler
from services.hosting.route_store import RouteStore
from services.hosting.settings import HostingSettings
from services.hosting.store import HostedProject, HostingStore, Wish
from tests.poll import poll_until

AT = datetime(2026, 1, 1, tzinfo=UTC)


class MemoryServe:
    """Ray Serve as its REST door shows it."""

    def __init__(self) -> None:
        self.puts: list[dict[str, Any]] = []
        self.applications: dict[str, Any] = {}
        self.error: Exception | None = None

    def details(self) -> dict[str, Any]:
        if self.error is not None:
            raise self.error
        return {"applications": copy.deepcopy(self.applications)}

    def put(self, config: dict[str, Any]) -> None:
        if self.error is not None:
            raise self.error
        self.puts.append(config)
        self.applications = {
            one["name"]: {"status": "DEPLOYING", "message": "", "deployed_app_config": one, "deployments": {}}
            for one in copy.deepcopy(config["applications"])
        }

    def become(self, status: str, *, replicas: int = 0, message: str = "") -> None:
        for application in self.applications.values():
            states = [{"state": "RUNNING"}] * replicas + [{"state": "STARTING"}]
            application |= {"status": status, "deployments": {"D": {"message": message, "replicas": states}}}


class Rig:
    def __init__(self, engine: Engine, units: int = 2) -> None:
        self.store = HostingStore(engine)
        self.routes = RouteStore(engine)
        self.serve = MemoryServe()
        self.metrics = Metrics()
        self.reconciler = self.new_reconciler(units)

    def new_reconciler(self, units: int = 2) -> Reconciler:
        settings = HostingSettings(inference_units=units)
        return Reconciler(self.store, self.routes, self.serve, settings, self.metrics)

    def wish(self, project: str, version: str = "v1", units: int = 1) -> None:
        self.store.wish([Wish(Hosting(project, version, f"s3://m/{version}", units, units), by="ada")], AT)

    def one(self, project: str = "cookies") -> HostedProject:
        return next(one for one in self.store.hosted() if one.hosting.project == project)


@pytest.fixture
def rig(engine: Engine) -> Rig:
    return Rig(engine)


def test_stream_and_gateway_are_put_before_any_model(rig: Rig) -> None:
    rig.reconciler.converge()
    assert set(rig.serve.applications) == {"stream", "gateway"}


def test_a_wish_is_put_once_and_its_status_read_back(rig: Rig) -> None:
    rig.wish("cookies", units=2)
    for _ in range(3):
        rig.reconciler.converge()
    assert len(rig.serve.puts) == 1
    assert rig.one().status is HostingStatus.STARTING_HOSTING
    rig.serve.become("RUNNING", replicas=2)
    rig.reconciler.converge()
    assert (rig.one().status, rig.one().message) == (HostingStatus.HOSTED, "")
    page = rig.metrics.page()
    assert b'loupe_inference_units{project="cookies",state="wanted"} 2.0' in page
    assert b'loupe_inference_units{project="cookies",state="running"} 2.0' in page


def test_a_failed_start_is_told_in_serves_words(rig: Rig) -> None:
    rig.wish("cookies")
    rig.reconciler.converge()
    rig.serve.become("DEPLOY_FAILED", message="the model\n is broken")
    rig.reconciler.converge()
    assert (rig.one().status, rig.one().message) == (HostingStatus.HOSTING_FAILED, "the model is broken")


def test_a_new_version_changes_user_config_alone(rig: Rig) -> None:
    rig.wish("cookies", "v1")
    rig.reconciler.converge()
    rig.serve.become("RUNNING", replicas=1)
    rig.wish("cookies", "v2")
    rig.reconciler.converge()
    before, after = (copy.deepcopy(put) for put in rig.serve.puts)
    assert after["applications"][0]["deployments"][0].pop("user_config")["version"] == "v2"
    assert before["applications"][0]["deployments"][0].pop("user_config")["version"] == "v1"
    assert after == before


def test_a_changed_route_changes_the_streams_user_config_alone(rig: Rig) -> None:
    rig.wish("cookies")
    rig.reconciler.converge()
    rig.routes.add(Route("saw-*", "cookies"), "ada", AT)
    rig.routes.add(Route("saw-7", "cookies", archive=ArchivePolicy.ALL), "ben", AT)
    rig.reconciler.converge()
    before, after = (copy.deepcopy(put) for put in rig.serve.puts)
    told = [
        one["deployments"][0].pop("user_config")["routes"]
        for put in (before, after)
        for one in put["applications"]
        if one["name"] == "stream"
    ]
    assert [[one["camera_pattern"] for one in routes] for routes in told] == [["*"], ["saw-7", "saw-*"]]
    assert after == before
    rig.reconciler.converge()
    assert len(rig.serve.puts) == 2


def test_a_route_that_somebody_else_writes_is_noticed_by_the_running_loop(rig: Rig) -> None:
    rig.wish("cookies")
    thread = threading.Thread(target=rig.reconciler.run)
    thread.start()
    try:
        poll_until(lambda: rig.serve.puts, deadline_s=10)
        rig.routes.add(Route("saw-*", "cookies"), "ada", AT)
        poll_until(lambda: len(rig.serve.puts) > 1, deadline_s=5, what="within seconds")
    finally:
        rig.reconciler.stop()
        thread.join(5)


def test_a_new_head_gets_everything_again(rig: Rig) -> None:
    rig.wish("cookies")
    rig.reconciler.converge()
    rig.serve.become("RUNNING", replicas=1)
    rig.reconciler.converge()
    rig.serve.error = ModelUnavailable("gone")
    with pytest.raises(ModelUnavailable):
        rig.reconciler.converge()
    assert rig.one().status is HostingStatus.STARTING_HOSTING
    assert "Ray does not answer" in rig.one().message
    rig.serve.error, rig.serve.applications = None, {}
    rig.reconciler.converge()
    assert set(rig.serve.applications) == {"inspector-cookies", "stream", "gateway"}
    rig.serve.become("RUNNING", replicas=1)
    rig.reconciler.converge()
    assert rig.one().status is HostingStatus.HOSTED


def test_a_restarted_process_puts_nothing(rig: Rig) -> None:
    rig.wish("cookies")
    rig.reconciler.converge()
    rig.new_reconciler().converge()
    assert len(rig.serve.puts) == 1


def test_a_configuration_that_serve_refuses_is_told(rig: Rig) -> None:
    rig.wish("cookies")
    rig.serve.error = Rejected("Ray Serve does not take the configuration: no")
    with pytest.raises(Rejected):
        rig.reconciler.converge()
    assert (rig.one().status, rig.one().message) == (HostingStatus.HOSTING_FAILED, rig.serve.error.message)


def test_who_does_not_fit_is_left_out_until_units_are_free(rig: Rig) -> None:
    rig.wish("cookies", units=2)
    rig.wish("plates", units=1)
    rig.reconciler.converge()
    assert "inspector-plates" not in rig.serve.applications
    assert (
        rig.one("plates").message == "Needs 1 inference units; 0 of the 2 that the cluster offers are free."
    )
    rig.wish("cookies", units=1)
    rig.reconciler.converge()
    assert "inspector-plates" in rig.serve.applications


def test_the_loop_goes_on_after_errors_and_stops_at_once(rig: Rig) -> None:
    rig.serve.error = ModelUnavailable("gone")
    thread = threading.Thread(target=rig.reconciler.run)
    thread.start()
    rig.serve.error = None
    poll_until(lambda: rig.serve.puts, deadline_s=10)
    rig.wish("cookies")
    rig.reconciler.wake()
    poll_until(lambda: "inspector-cookies" in rig.serve.applications, deadline_s=5)
    rig.reconciler.stop()
    thread.join(5)
    assert not thread.is_alive()
