"""Promotion of what a command fits: with a tritonserver of its own while the stack runs, else without.

While no stack runs nothing is served, so the golden check is ONNX Runtime's, which saves some seconds.
"""

from __future__ import annotations

from sqlalchemy import Engine

from services.adapters.clock import SystemClock
from services.adapters.object_store import ObjectStore
from services.embedded.addresses import StackAddresses
from services.embedded.home import Home
from services.trainer.datasets import Datasets
from services.trainer.promotion import Promotion
from services.trainer.proving import InProcessProver, ScratchProver
from services.trainer.registry import Registry
from services.trainer.scratch_triton import TritonParts


def promotion_of(home: Home, engine: Engine, store: ObjectStore, at: StackAddresses | None) -> Promotion:
    """Return what decides on versions that this process fits; `at` is None to start no server."""
    prover = (
        InProcessProver("no server was started for it.")
        if at is None
        else ScratchProver(TritonParts(at.tritonserver, at.backend_python))
    )
    folder = home.path / "fit"
    return Promotion(Registry(engine, store), Datasets(engine, store), prover, SystemClock(), folder)
