"""Makes the desired state true on Ray Serve, and notes what came of it (arrow 7).

Compares before it writes, so a restarted process changes nothing, and a new head gets everything.
One turn of `converge` never waits for Serve to get there: the next turn looks again.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from services.adapters.metrics import Metrics
from services.domain.errors import Rejected, RetryLater
from services.domain.hosting import HostingStatus
from services.domain.metrics import UNITS
from services.hosting.route_store import RouteStore
from services.hosting.serve_api import ServeApi
from services.hosting.serve_config import STREAM, application_of_project, config_of, is_applied
from services.hosting.settings import HostingSettings
from services.hosting.store import HostedProject, HostingStore
from services.hosting.units import admission

logger = logging.getLogger(__name__)

# Asking every second cost the head nothing that could be measured (1.2 s of CPU in 10 s either way).
# While it is away it is asked at least this often: a refused connection costs nothing, but whoever
# starts a stack waits for the first model.
_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 3.0
_AWAY = "Ray does not answer; hosting goes on when it is back."

_STATUSES = {
    "RUNNING": HostingStatus.HOSTED,
    "DEPLOY_FAILED": HostingStatus.HOSTING_FAILED,
}


class Reconciler:
    """The one writer of Serve's configuration."""

    def __init__(
        self,
        store: HostingStore,
        routes: RouteStore,
        serve: ServeApi,
        settings: HostingSettings,
        metrics: Metrics,
    ) -> None:
        """Bring `serve` to what `store` and `routes` say."""
        self._store = store
        self._routes = routes
        self._serve = serve
        self._settings = settings
        self._metrics = metrics
        self._wake = threading.Event()
        self._is_stopping = False
        self._known_projects: set[str] = set()

    def run(self) -> None:
        """Converge until `stop`; waits out a head or a database that is away."""
        pause_s = _PAUSE_S
        while not self._is_stopping:
            try:
                self.converge()
                pause_s = _PAUSE_S
            except (RetryLater, Rejected) as error:
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
                logger.warning("%s Again in %.0f s.", error.message, pause_s)
            self._wake.wait(pause_s)
            self._wake.clear()

    def wake(self) -> None:
        """Look again at once: the desired state has changed."""
        self._wake.set()

    def stop(self) -> None:
        """Make `run` return after its turn. Serve goes on as it is."""
        self._is_stopping = True
        self._wake.set()

    def converge(self) -> None:
        """Do one turn.

        Raises:
            RetryLater: Ray or the database does not answer.
            Rejected: Serve does not take the configuration.
        """
        hosted = self._store.hosted()
        refused = admission([one.hosting for one in hosted], self._settings.inference_units)
        admitted = [one for one in hosted if one.hosting.project not in refused]
        for one in hosted:
            if one.hosting.project in refused:
                self._note(one, HostingStatus.HOSTING_FAILED, refused[one.hosting.project])
        routes = [stored.route for stored in self._routes.all()]
        config = config_of([one.hosting for one in admitted], routes, self._settings.stream_replicas_count)
        try:
            applications = self._applied(config)
        except RetryLater:
            self._note_all(admitted, HostingStatus.STARTING_HOSTING, _AWAY)
            raise
        except Rejected as error:
            self._note_all(admitted, HostingStatus.HOSTING_FAILED, error.message)
            raise
        if applications is None:
            return
        self._measure(hosted, applications)
        stream = _status_of(applications.get(STREAM))
        for one in admitted:
            units = _status_of(applications.get(application_of_project(one.hosting.project)))
            # A project is served when its frames find the way, too: the stream may still be told so.
            self._note(one, *(stream if units[0] is HostingStatus.HOSTED else units))

    def _applied(self, config: dict[str, Any]) -> dict[str, Any] | None:
        """Return Serve's applications by name, None if it was given the configuration just now."""
        details = self._serve.details()
        if is_applied(config, details):
            applications: dict[str, Any] = details["applications"]
            return applications
        names = ", ".join(application["name"] for application in config["applications"])
        logger.info("applying configuration: %s", names)
        self._serve.put(config)
        return None

    def _note_all(self, hosted: Sequence[HostedProject], status: HostingStatus, message: str) -> None:
        for one in hosted:
            self._note(one, status, message)

    def _note(self, one: HostedProject, status: HostingStatus, message: str) -> None:
        """Write a status down if it is news."""
        if (one.status, one.message) != (status, message):
            logger.info("%s %s: %s %s", one.hosting.project, one.hosting.version, status, message)
            self._store.note(one.hosting.project, status, message)

    def _measure(self, hosted: Sequence[HostedProject], applications: Mapping[str, Any]) -> None:
        projects = {one.hosting.project: one.hosting.min_units for one in hosted}
        for project in self._known_projects | set(projects):
            running = _running_units(applications.get(application_of_project(project)))
            self._metrics.set(UNITS, projects.get(project, 0), project=project, state="wanted")
            self._metrics.set(UNITS, running, project=project, state="running")
        self._known_projects |= set(projects)


def _status_of(application: Mapping[str, Any] | None) -> tuple[HostingStatus, str]:
    """Return how far an application is, and its own words where it is not well."""
    if application is None:
        return HostingStatus.STARTING_HOSTING, ""
    status = _STATUSES.get(application["status"], HostingStatus.STARTING_HOSTING)
    if status is HostingStatus.HOSTED:
        return status, ""
    messages = [application.get("message", "")]
    messages += [one.get("message", "") for one in application.get("deployments", {}).values()]
    return status, " ".join(" ".join(messages).split())


def _running_units(application: Mapping[str, Any] | None) -> int:
    deployments = application.get("deployments", {}).values() if application else ()
    states = [replica["state"] for one in deployments for replica in one.get("replicas", ())]
    return states.count("RUNNING")
