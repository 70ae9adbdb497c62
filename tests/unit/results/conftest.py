"""A results pipeline on a memory broker and a SQLite file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, Table, func, select

from services.adapters.broker import Producer
from services.adapters.broker.memory import MemoryBroker, MemoryProducer
from services.adapters.broker.patience import Patience
from services.adapters.cache.live import LiveView
from services.adapters.cache.memory import MemoryCache
from services.adapters.clock import FakeClock
from services.adapters.database import migrate, open_engine, reading
from services.adapters.metrics import Metrics
from services.results.pipeline import Pipeline
from services.results.store import Store
from services.results.tally import Tally
from tests.unit.results.builders import START


@dataclass
class Bench:
    """The parts of one results process; `restarted` gives the next one on the same outside world."""

    engine: Engine
    broker: MemoryBroker
    cache: MemoryCache
    clock: FakeClock
    producer: Producer
    store: Store
    metrics: Metrics
    patience: Patience
    pipeline: Pipeline

    def count(self, table: Table) -> int:
        with reading(self.engine) as connection:
            return connection.execute(select(func.count()).select_from(table)).scalar_one()

    def metric(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, labels)

    def restarted(self, **changes: Any) -> Bench:
        return bench_of(self.engine, self.broker, self.cache, self.clock, **changes)


def bench_of(
    engine: Engine,
    broker: MemoryBroker,
    cache: MemoryCache,
    clock: FakeClock,
    *,
    producer: Producer | None = None,
    store: Store | None = None,
    max_poison_ratio: float = 0.5,
) -> Bench:
    producer, store = producer or MemoryProducer(broker), store or Store(engine, clock)
    metrics, patience = Metrics(), Patience()
    tally = Tally(metrics)
    tally.start_from(engine)
    pipeline = Pipeline(
        store, producer, tally, LiveView(cache, clock), clock, patience, max_poison_ratio=max_poison_ratio
    )
    return Bench(engine, broker, cache, clock, producer, store, metrics, patience, pipeline)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    url = f"sqlite:///{tmp_path / 'loupe.db'}"
    migrate(url)
    engine = open_engine(url)
    yield bench_of(engine, MemoryBroker(), MemoryCache(), FakeClock(START + timedelta(seconds=100)))
    engine.dispose()
