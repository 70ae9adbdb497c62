"""One model version in Triton: written to its repository, loaded, proved, healed, unloaded (arrow 2).

Each replica has its own copy under its own name, with a lease: an flock that the kernel drops when
the replica dies, however it dies. Whoever finds a lease that nobody holds removes the orphan.
Health is a canary inference, never "ready": a dead backend stub still says ready.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from serve.units import MAX_BATCH_FRAMES
from serve.versions import VersionFolder
from services.adapters.clock import Clock
from services.adapters.triton import ModelServer
from services.adapters.triton.repository import write_model
from services.domain.errors import CorruptModel, FrameCrashesModel, LoupeError, ModelUnavailable
from services.domain.model_version import Variant
from services.vision.golden import check_golden, read_golden
from services.vision.outputs import GraphOutputs
from services.vision.variants import to_serve

logger = logging.getLogger(__name__)

# A batch of 16 takes 0.15 s on two free cores; this leaves room for a machine with none free.
INFER_TIMEOUT_S = 10.0
# With a round of health every second this finds even a server that hangs within 5 s (promise P6).
CANARY_TIMEOUT_S = 3.0
_LEASE_FILE = "lease"


class Lease:
    """A model's folder in Triton's repository, ours as long as this process lives."""

    def __init__(self, repository: Path, name: str) -> None:
        """Create `repository/name` and lock it."""
        self.name = re.sub(r"[^A-Za-z0-9._-]", "_", name)
        self.folder = repository / self.name
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(self.folder / _LEASE_FILE, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def write(self, version: VersionFolder, variant: Variant, threads: int) -> None:
        """Put one variant of the model there in the layout of Triton's Python backend."""
        write_model(self.folder, version.path, version.manifest, variant, threads)

    def give_up(self) -> None:
        """Remove the folder and let go of the lock."""
        shutil.rmtree(self.folder, ignore_errors=True)
        os.close(self._lock)


def reap_orphans(server: ModelServer, repository: Path) -> tuple[str, ...]:
    """Unload and remove models whose replica is dead; return their names.

    Folders without a lease are not ours and stay.

    Raises:
        ModelUnavailable: the server does not answer; nothing more was removed.
    """
    reaped = []
    for path in sorted(repository.glob(f"*/{_LEASE_FILE}")):
        with suppress(OSError), path.open("r+b") as lease:
            fcntl.flock(lease, fcntl.LOCK_EX | fcntl.LOCK_NB)  # raises where somebody lives
            server.unload(path.parent.name)
            shutil.rmtree(path.parent, ignore_errors=True)
            reaped.append(path.parent.name)
    return tuple(reaped)


class ServedModel:
    """One version, loaded under one name by one replica; thread-safe.

    Attributes:
        manifest: of the version.
        variant: the precision that serves; fp32 where the manifest's choice proved wrong here.
    """

    def __init__(
        self, server: ModelServer, lease: Lease, version: VersionFolder, clock: Clock, threads: int
    ) -> None:
        """Write and load the version, prove it with its golden images, and warm it up. Blocks.

        Raises:
            ModelUnavailable: Triton does not answer.
            CorruptModel: Triton cannot load it in fp32, or it computes other numbers than when trained.
        """
        self.manifest = version.manifest
        self._server, self._lease, self._clock = server, lease, clock
        self._users = 0
        self._idle = threading.Condition()
        self._broken: str | None = None
        self._answered_monotonic_s = clock.monotonic_s()
        *faster, fp32 = to_serve(version.manifest)
        for variant in faster:
            try:
                self._open(version, variant, threads)
            except CorruptModel as error:
                logger.warning("fp32 serves instead: %s", error.message)
                server.unload(lease.name)
            else:
                return
        self._open(version, fp32, threads)

    def _open(self, version: VersionFolder, variant: Variant, threads: int) -> None:
        """Write, load and prove one variant."""
        self.variant, self._golden = variant, read_golden(version.path, variant)
        self._lease.write(version, variant, threads)
        self._server.load(self._lease.name)
        self._prove()

    def infer(self, batch: NDArray[np.uint8]) -> GraphOutputs:
        """Return what the model says of a batch (N, H, W, 3) uint8 RGB.

        Raises:
            ModelUnavailable: known to be broken and not yet healed; the batch was not tried.
            FrameCrashesModel: it was healthy, and this call failed. Either chance or the batch.
        """
        if self._broken is not None:
            raise ModelUnavailable(f"{self._lease.name} is being healed: {self._broken}")
        try:
            return self._run(batch, INFER_TIMEOUT_S)
        except ModelUnavailable as error:
            self._broken = error.message
            message = f"The model failed while it judged {len(batch)} frames: {error.message}"
            raise FrameCrashesModel(message, frames=len(batch)) from error

    def tend(self, idle_s: float) -> None:
        """Heal what is broken; else prove health by a canary unless traffic did, `idle_s` ago at most.

        Raises:
            LoupeError: broken, and not healed this time.
        """
        if self._broken is None and self._clock.monotonic_s() - self._answered_monotonic_s < idle_s:
            return
        if self._broken is None:
            try:
                self._canary()
            except LoupeError as error:
                self._broken = error.message
                logger.warning("canary of %s failed: %s", self._lease.name, error.message)
            else:
                return
        self._heal()

    def _heal(self) -> None:
        """Load anew; a restarted server forgot the model, a dead stub needs the unload first."""
        if not self._server.is_live():
            raise ModelUnavailable(f"Triton does not answer; {self._lease.name} waits for it.")
        self._server.unload(self._lease.name)
        self._server.load(self._lease.name)
        self._canary()
        self._broken = None
        logger.warning("healed %s by unload and load", self._lease.name)

    @property
    def problem(self) -> str | None:
        """What is wrong, None while healthy."""
        return self._broken

    @contextmanager
    def in_use(self) -> Iterator[ServedModel]:
        """Keep the model from being retired meanwhile."""
        with self._idle:
            self._users += 1
        try:
            yield self
        finally:
            with self._idle:
                self._users -= 1
                self._idle.notify_all()

    def retire(self, drain_s: float) -> None:
        """Wait until nobody uses the model, `drain_s` at most, then unload and remove it."""
        with self._idle:
            self._idle.wait_for(lambda: self._users == 0, drain_s)
        with suppress(ModelUnavailable):  # a server that is gone has forgotten it, too
            self._server.unload(self._lease.name)
        self._lease.give_up()

    def _run(self, batch: NDArray[np.uint8], timeout_s: float) -> GraphOutputs:
        names = [spec.name for spec in self.manifest.outputs]
        values = self._server.infer(
            self._lease.name,
            input_name=self.manifest.inputs[0].name,
            batch=batch,
            outputs=names,
            timeout_s=timeout_s,
        )
        self._answered_monotonic_s = self._clock.monotonic_s()
        return GraphOutputs.of(dict(zip(names, values, strict=True)))

    def _canary(self) -> None:
        self._compare(self._run(self._golden.inputs[:1], CANARY_TIMEOUT_S))

    def _prove(self) -> None:
        # A whole batch of them, so that memory for the largest batch is there before the first frame.
        inputs = self._golden.inputs
        batch = np.resize(inputs, (MAX_BATCH_FRAMES, *inputs.shape[1:]))
        self._compare(self._run(batch, INFER_TIMEOUT_S).first(len(inputs)))

    def _compare(self, found: GraphOutputs) -> None:
        check_golden(found, self._golden.outputs.first(len(found)), self.variant, self._lease.name)
