"""Which version a replica serves: load, prove, switch, unload the old; and its health (arrows 2, 7).

The new version is loaded under a name of its own while the old one serves, so a switch leaves no
gap; where the new one fails, the old one goes on. Two threads: one follows what is wanted, one
keeps what is served alive. Knows no Ray.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from serve.triton import Lease, ServedModel, reap_orphans
from serve.versions import VersionCache
from services.adapters.clock import Clock
from services.adapters.triton import ModelServer
from services.domain.errors import LoupeError, ModelUnavailable, RetryLater, StoreUnavailable

logger = logging.getLogger(__name__)

# Promise P6: a dead model is found within 5 s, with one canary's timeout (3 s) on top of a round.
HEALTH_INTERVAL_S = 1.0
# A version whose store or server was away is tried again after this.
RETRY_INTERVAL_S = 5.0
# Parts of a stack start together; a server that comes up within this is no failure.
SERVER_PATIENCE_S = 30.0
# Longer than the slowest batch (its timeout); then the old version goes, used or not.
DRAIN_S = 15.0


@dataclass(frozen=True, slots=True)
class WantedVersion:
    """What a replica is to serve: `user_config` of the Inspector deployment."""

    project: str
    version: str
    uri: str


@dataclass(frozen=True, slots=True)
class NodeLimits:
    """What one unit may use of its node.

    Attributes:
        repository: Triton's model repository.
        threads: CPU threads for the graph, and for decoding.
    """

    repository: Path
    threads: int


class ModelWatch:
    """The served version of one replica."""

    def __init__(self, server: ModelServer, cache: VersionCache, clock: Clock, limits: NodeLimits) -> None:
        """Serve nothing yet; `follow` names the first version, `start` begins to watch."""
        self._server, self._cache, self._clock, self._limits = server, cache, clock, limits
        self._model: ServedModel | None = None
        self._wanted: WantedVersion | None = None
        self._changed = threading.Condition()
        self._switching = threading.Lock()
        self._stopped = threading.Event()
        self._hurry = threading.Event()
        self._unhealthy_since_monotonic_s: float | None = None
        self._threads = [
            threading.Thread(target=work, daemon=True, name=work.__name__)
            for work in (self._keep_alive, self._keep_current)
        ]

    def start(self) -> None:
        """Start both threads."""
        for thread in self._threads:
            thread.start()

    def follow(self, wanted: WantedVersion) -> None:
        """Serve `wanted` from now on.

        The first version is loaded before this returns. Later ones are loaded behind the back of
        the one that serves; a failure is logged and leaves that one in place.

        Raises:
            LoupeError: nothing is served yet, and this version cannot be.
        """
        with self._changed:
            self._wanted = wanted
            self._changed.notify_all()
        if self._model is None:
            self._await_server()
            self.switch()

    def _await_server(self) -> None:
        end_monotonic_s = self._clock.monotonic_s() + SERVER_PATIENCE_S
        while not self._server.is_live() and self._clock.monotonic_s() < end_monotonic_s:
            self._stopped.wait(HEALTH_INTERVAL_S)

    def switch(self) -> None:
        """Bring what is served in line with what is wanted. Blocks.

        Raises:
            LoupeError: the wanted version cannot be served; the old one goes on.
        """
        with self._switching:
            wanted, old = self._wanted, self._model
            if wanted is None or (old is not None and old.manifest.version == wanted.version):
                return
            try:
                self._model = self._open(wanted)
            except OSError as error:
                message = f"{wanted.project} {wanted.version} cannot be put on this node's disk: {error}"
                raise StoreUnavailable(message, uri=wanted.uri) from error
            logger.info("serving %s %s", wanted.project, wanted.version)
            if old is not None:
                old.retire(DRAIN_S)

    def _open(self, wanted: WantedVersion) -> ServedModel:
        version = self._cache.fetch(wanted.uri)
        name = f"{wanted.project}.{wanted.version}.{uuid4().hex[:8]}"
        lease = Lease(self._limits.repository, name)
        try:
            return ServedModel(self._server, lease, version, self._clock, self._limits.threads)
        except Exception:
            with suppress(ModelUnavailable):
                self._server.unload(lease.name)
            lease.give_up()
            raise

    @contextmanager
    def current(self) -> Iterator[ServedModel]:
        """Yield the model to judge with; it stays loaded until the block ends.

        Raises:
            ModelUnavailable: nothing is loaded.
        """
        model = self._model
        if model is None:
            raise ModelUnavailable("No model version is loaded yet.")
        with model.in_use():
            yield model

    def report_failure(self) -> None:
        """Look after the model's health at once, because a call has just failed."""
        self._hurry.set()

    def tend(self) -> None:
        """Do one round: heal or prove the model, remove orphans of dead replicas."""
        try:
            if self._model is not None:
                with self.current() as model:  # in use, so that a switch does not unload it meanwhile
                    model.tend(HEALTH_INTERVAL_S)
            for name in reap_orphans(self._server, self._limits.repository):
                logger.warning("removed %s, whose replica is gone", name)
        except LoupeError as error:
            if self._unhealthy_since_monotonic_s is None:
                self._unhealthy_since_monotonic_s = self._clock.monotonic_s()
                logger.warning("%s", error.message)
        else:
            self._unhealthy_since_monotonic_s = None

    @property
    def is_watching(self) -> bool:
        """Tell whether both threads are at work."""
        return all(thread.is_alive() for thread in self._threads)

    @property
    def unhealthy_s(self) -> float:
        """For how long healing has failed while the server itself answers; 0 while healthy."""
        since = self._unhealthy_since_monotonic_s
        if since is None or not self._server.is_live():
            return 0.0
        return self._clock.monotonic_s() - since

    def close(self) -> None:
        """Stop watching and unload."""
        self._stopped.set()
        self._hurry.set()
        with self._changed:
            self._changed.notify_all()
        with self._switching:
            model, self._model = self._model, None
            if model is not None:
                model.retire(DRAIN_S)

    def _keep_alive(self) -> None:
        while not self._stopped.is_set():
            self.tend()
            self._hurry.wait(HEALTH_INTERVAL_S)
            self._hurry.clear()

    def _keep_current(self) -> None:
        settled: WantedVersion | None = None
        while not self._stopped.is_set():
            wanted = self._wanted
            if self._model is not None and wanted != settled and self._try_switch():
                settled = wanted
            self._wait_for_other(wanted)

    def _wait_for_other(self, wanted: WantedVersion | None) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._stopped.is_set() or self._wanted != wanted, RETRY_INTERVAL_S)

    def _try_switch(self) -> bool:
        """Switch; tell whether there is nothing more to do, be it done or hopeless."""
        try:
            self.switch()
        except RetryLater as error:
            logger.warning("the wanted version waits: %s", error.message)
            return False
        except LoupeError as error:
            logger.error("the old version stays, the wanted one fails: %s", error.message)  # noqa: TRY400
        return True
