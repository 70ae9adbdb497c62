"""A model server in this process for tests, with tritonserver's habits.

It runs `<repository>/<name>/1/model.onnx` with ONNX Runtime. As in the real one a dead model goes on
saying that it is ready, loading it again does not heal it, and a restarted server has forgotten all.
Gaps: no timeouts; `config.pbtxt` and `model.py` are not read.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.domain.errors import CorruptModel, ModelUnavailable


class MemoryTriton:
    """See `ModelServer`.

    Attributes:
        is_up: set it to False to kill the server, and back to start it anew.
    """

    def __init__(self, repository: Path) -> None:
        """Serve the models below `repository`; none is loaded."""
        self._repository = repository
        self._sessions: dict[str, Any] = {}
        self._dead: set[str] = set()
        self._lock = threading.Lock()
        self._is_up = True

    @property
    def is_up(self) -> bool:
        """Whether the server runs."""
        return self._is_up

    @is_up.setter
    def is_up(self, value: bool) -> None:
        with self._lock:
            self._is_up = value
            self._sessions.clear()
            self._dead.clear()

    def crash(self, name: str) -> None:
        """Kill what runs a model; the server goes on and does not notice."""
        with self._lock:
            self._dead.add(name)

    def is_live(self) -> bool:
        """See `ModelServer.is_live`."""
        return self._is_up

    def load(self, name: str) -> None:
        """See `ModelServer.load`."""
        self._must_be_up()
        if name in self._sessions:
            return
        import onnxruntime

        path = self._repository / name / "1" / "model.onnx"
        try:
            session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        except Exception as error:
            message = f"Triton cannot load {name}: {error}"
            raise CorruptModel(message, model=name) from error
        with self._lock:
            self._sessions[name] = session

    def unload(self, name: str) -> None:
        """See `ModelServer.unload`."""
        self._must_be_up()
        with self._lock:
            self._sessions.pop(name, None)
            self._dead.discard(name)

    def loaded(self) -> frozenset[str]:
        """See `ModelServer.loaded`."""
        self._must_be_up()
        return frozenset(self._sessions)

    def infer(
        self,
        name: str,
        *,
        input_name: str,
        batch: NDArray[np.uint8],
        outputs: Sequence[str],
        timeout_s: float,  # noqa: ARG002  # the Protocol's
    ) -> tuple[NDArray[np.float32], ...]:
        """See `ModelServer.infer`."""
        self._must_be_up()
        with self._lock:
            session = None if name in self._dead else self._sessions.get(name)
        if session is None:
            message = f"Triton did not answer for {name}: it is not loaded or its stub is dead."
            raise ModelUnavailable(message, model=name)
        try:
            values = session.run(list(outputs), {input_name: batch})
        except Exception as error:
            message = f"Triton did not answer for {name}: {error}"
            raise ModelUnavailable(message, model=name) from error
        return tuple(np.asarray(value, np.float32) for value in values)

    def close(self) -> None:
        """See `ModelServer.close`."""

    def _must_be_up(self) -> None:
        if not self._is_up:
            raise ModelUnavailable("Triton does not answer.")
