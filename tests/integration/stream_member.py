"""One member of the group `loupe-stream` as a process: the real stream on a real broker, units made up.

Run as `python -m tests.integration.stream_member BOOTSTRAP`; ends on SIGTERM as a replica does.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Sequence

from serve.stream import GROUP, Outside, StreamCore, StreamLimits
from services.adapters.broker.kafka import KafkaBrokerConsumer, KafkaBrokerProducer
from services.adapters.clock import SystemClock
from services.adapters.object_store import memory_store
from services.domain.frame import Frame
from services.domain.hosting import Route, RouteTable
from services.domain.topics import FRAMES
from tests.unit.serve.fakes import FakeUnits

# A batch of 16 takes a unit longer than this; enough for some batches to be out whenever something happens.
JUDGING_S = 0.03


def main(bootstrap: str) -> None:
    """Consume until SIGTERM."""
    never = threading.Event()

    def take_time(project: str, frames: Sequence[Frame]) -> None:
        never.wait(JUDGING_S)

    outside = Outside(
        open_consumer=lambda on_revoked: KafkaBrokerConsumer(
            bootstrap, topics=[FRAMES.name], group=GROUP, on_revoked=on_revoked
        ),
        open_producer=lambda: KafkaBrokerProducer(bootstrap),
        units=FakeUnits(take_time),
        store=memory_store(),
        clock=SystemClock(),
    )
    core = StreamCore(outside, StreamLimits())
    core.follow(RouteTable([Route("*", "plates")], ["plates"]))
    signal.signal(signal.SIGTERM, lambda *_: core.stop())
    core.run()
    sys.exit(0 if core.failure is None else 1)


if __name__ == "__main__":
    main(sys.argv[1])
