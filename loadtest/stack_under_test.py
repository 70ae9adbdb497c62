"""The stack that is measured: the one that runs, else one of its own that is gone afterwards."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
from sqlalchemy import Engine, select

from services.adapters.broker.kafka import KafkaBrokerProducer
from services.adapters.clock import SystemClock
from services.adapters.database import open_engine, reading
from services.adapters.database.tables import hostings
from services.adapters.object_store.store import s3_store
from services.domain.errors import StopProcess
from services.embedded import stack
from services.embedded.promotion import promotion_of
from services.embedded.settings import EmbeddedSettings
from services.embedded.stack import StackAddresses
from services.trainer.commands import FitOutcome, FitRequest, fit_folder

_HOSTED_DEADLINE_S = 180.0


@dataclass(frozen=True)
class StackUnderTest:
    """A running stack and its database."""

    settings: EmbeddedSettings
    addresses: StackAddresses
    engine: Engine

    def fit_and_host(self, photos: Path, project: str, models: Path) -> FitOutcome:
        """Fit a detector from photos, and return once it is served."""
        at = self.addresses
        store = s3_store(at.s3_endpoint, at.s3_key, at.s3_secret, at.s3_region)
        producer = KafkaBrokerProducer(at.kafka_bootstrap)
        try:
            outcome = fit_folder(
                FitRequest(photos, project),
                promotion=promotion_of(self.settings.home_folder, self.engine, store, at),
                models=models,
                producer=producer,
                clock=SystemClock(),
            )
        finally:
            producer.close()
        self._wait_until_hosted(project, outcome.announcement.version)
        return outcome

    def _wait_until_hosted(self, project: str, version: str) -> None:
        end_s, said = time.monotonic() + _HOSTED_DEADLINE_S, "nothing"
        while time.monotonic() < end_s:
            with reading(self.engine) as connection:
                row = connection.execute(select(hostings).where(hostings.c.project == project)).first()
            if row is not None and row.version == version:
                if row.status == "HOSTED":
                    return
                said = f"{row.status} {row.message}"
            time.sleep(0.5)
        raise StopProcess(f"{version} was not hosted within {_HOSTED_DEADLINE_S:.0f} s; hosting says: {said}")

    def cpu_s(self) -> dict[str, float]:
        """Return seconds of CPU that each part has used so far, its children included."""
        used: dict[str, float] = {}
        for part in stack.status(self.settings):
            if part.pid is not None:
                for name, seconds in _cpu_of_tree(part.name, part.pid):
                    used[name] = used.get(name, 0.0) + seconds
        return used

    def rss_mb(self) -> float:
        """Return the memory of all parts together."""
        return sum(part.rss_mb for part in stack.status(self.settings))


def _cpu_of_tree(part: str, pid: int) -> Iterator[tuple[str, float]]:
    """Yield (name, seconds) of a part's processes; Ray's workers by what they serve."""
    try:
        root = psutil.Process(pid)
        for process in (root, *root.children(recursive=True)):
            title = process.cmdline()[:1]
            is_worker = bool(title) and title[0].startswith("ray::")
            name = f"{part} {title[0].removeprefix('ray::')}"[:48] if is_worker else part
            times = process.cpu_times()
            yield name, times.user + times.system
    except psutil.NoSuchProcess:
        return


@contextmanager
def stack_under_test() -> Iterator[StackUnderTest]:
    """Give the stack of `LOUPE_HOME`; while none runs there, start one in a folder of its own."""
    settings = EmbeddedSettings()
    addresses = stack.running_stack(settings)
    if addresses is not None:
        yield StackUnderTest(settings, addresses, open_engine(addresses.database_url))
        return
    with tempfile.TemporaryDirectory(prefix="loupe-load-", ignore_cleanup_errors=True) as folder:
        own = EmbeddedSettings(home=Path(folder))
        try:
            addresses = stack.up(own)
            yield StackUnderTest(own, addresses, open_engine(addresses.database_url))
        finally:
            stack.down(own)
