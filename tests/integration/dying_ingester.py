"""An ingester that kills itself at a named step: `python -m tests.integration.dying_ingester`.

Wired like the product, but for wrappers that count a step's calls and send SIGKILL to this process.
Without a step it runs until the folder is empty and Kafka has everything.
"""

from __future__ import annotations

import argparse
import os
import signal
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any

from services.adapters.broker import Delivery
from services.adapters.broker.kafka import KafkaBrokerProducer
from services.adapters.clock import SystemClock
from services.domain.camera import ShedPolicy
from services.domain.topics import FRAMES, LEDGER
from services.ingest.pipeline import CameraSpec, Ingester, Progress
from services.ingest.sources import Settled, Shot, Taken
from services.ingest.sources.folder import FolderSource
from services.ingest.spool import Sender, Spool
from services.wire.record import OutRecord

STEPS = (
    "before-commit", "in-commit", "after-commit", "before-settled", "after-settled", "after-send",
    "before-acknowledged", "after-acknowledged", "after-removed", "entry-made", "entry-sent",
    "entry-acknowledged",
)  # fmt: skip


class Death:
    """Comes at the n-th call of one step."""

    def __init__(self, step: str | None, after: int) -> None:
        self._step, self._left = step, after

    def at(self, step: str) -> None:
        """Die, if it is time."""
        if step == self._step:
            self._left -= 1
            if self._left < 0:
                os.kill(os.getpid(), signal.SIGKILL)

    def around(self, owner: object, method: str, before: str, after: str) -> None:
        """Make a method of an object two steps."""
        inner: Callable[..., Any] = getattr(owner, method)

        def wrapped(*args: Any, **named: Any) -> Any:
            self.at(before)
            found = inner(*args, **named)
            self.at(after)
            return found

        setattr(owner, method, wrapped)


class DyingProducer(KafkaBrokerProducer):
    """Dies after handing a record over."""

    def __init__(self, bootstrap: str, death: Death) -> None:
        super().__init__(bootstrap)
        self._death = death

    def send(self, record: OutRecord) -> Delivery:  # type: ignore[override]  # wider than its parent's
        delivery = super().send(record)
        if record.topic == LEDGER.name:
            # What is sent must have left the process for this step to differ from the one before.
            delivery.result(10)
        self._death.at({FRAMES.name: "after-send", LEDGER.name: "entry-sent"}[record.topic])
        return delivery


class DyingSource:
    """The folder, whose shots die before and after they are settled; ends once the folder is empty."""

    def __init__(self, folder: Path, spool: Spool, camera: str, death: Death) -> None:
        self._inner = FolderSource(folder, captured_before=lambda r: spool.captured_before(camera, r))
        self._folder, self._death = folder, death

    def shots(self, stop: Event) -> Iterator[Taken | None]:
        for taken in self._inner.shots(stop):
            if isinstance(taken, Shot):
                yield replace(taken, on_settled=partial(self._settle, taken.on_settled))
            elif taken is not None or any(self._folder.glob("*.jpg")):
                yield taken
            else:
                return

    def _settle(self, inner: Callable[[Settled], None], settled: Settled) -> None:
        self._death.at("before-settled")
        inner(settled)
        self._death.at("after-settled")


def main() -> None:
    """Run, and maybe die."""
    parser = argparse.ArgumentParser()
    for name in ("folder", "spool", "bootstrap", "camera"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--step", choices=STEPS)
    parser.add_argument("--after", type=int, default=0)
    asked = parser.parse_args()
    death = Death(asked.step, asked.after)
    clock, spool = SystemClock(), None
    spool = Spool(Path(asked.spool), clock=clock, reserve_bytes=0)
    _wrap_database(spool, death)
    death.around(spool.feed, "acknowledge", "before-acknowledged", "after-acknowledged")
    death.around(spool.feed, "flush", "", "after-removed")
    death.around(spool.feed, "acknowledge_entry", "entry-acknowledged", "")
    _wrap_declare(spool, death)
    sender = Sender(spool, lambda: DyingProducer(asked.bootstrap, death), clock)
    sender.start()
    source = DyingSource(Path(asked.folder), spool, asked.camera, death)
    spec = CameraSpec(asked.camera, source, fps=50, shed=ShedPolicy.BLOCK)
    ended: Progress = Ingester(spec, spool, clock).run(Event())
    settled = sender.flush(30)
    sender.stop()
    spool.close()
    print("settled" if settled else "not settled", ended.captured)  # noqa: T201


def _wrap_database(spool: Spool, death: Death) -> None:
    """Die before, within or after the transaction that takes a frame."""
    database = spool._database
    inner = database.write

    def write(work: Callable[[sqlite3.Connection], None]) -> None:
        is_frame = work.__qualname__.startswith("CameraSpool._keep")

        def dying(db: sqlite3.Connection) -> None:
            work(db)
            if is_frame:
                death.at("in-commit")

        if is_frame:
            death.at("before-commit")
        inner(dying)
        if is_frame:
            death.at("after-commit")

    database.write = write  # type: ignore[method-assign]


def _wrap_declare(spool: Spool, death: Death) -> None:
    """Die after entries were made and before they are sent."""
    inner = spool.feed.declare

    def declare() -> None:
        inner()
        if spool._lanes.entries:
            death.at("entry-made")

    spool.feed.declare = declare  # type: ignore[method-assign]


if __name__ == "__main__":
    main()
