"""What a model server has to do; `tests/contract/test_triton.py` holds both implementations to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class ModelServer(Protocol):
    """Loads models from its repository by name and runs them. All methods block; any thread may call."""

    def is_live(self) -> bool:
        """Tell whether the server answers at all; says nothing about any model."""
        ...

    def load(self, name: str) -> None:
        """Load the repository's model of that name; doing so again may not heal a dead one.

        Raises:
            ModelUnavailable: the server does not answer.
            CorruptModel: the server cannot load what it finds there.
        """
        ...

    def unload(self, name: str) -> None:
        """Let go of a model; harmless when it is not loaded.

        Raises:
            ModelUnavailable: the server does not answer.
        """
        ...

    def loaded(self) -> frozenset[str]:
        """Return the names of the models that the server says are ready (a dead one says so too).

        Raises:
            ModelUnavailable: the server does not answer.
        """
        ...

    def infer(
        self,
        name: str,
        *,
        input_name: str,
        batch: NDArray[np.uint8],
        outputs: Sequence[str],
        timeout_s: float,
    ) -> tuple[NDArray[np.float32], ...]:
        """Run a model on one batch.

        Args:
            name: a loaded model.
            input_name: its only input.
            batch: (N, H, W, 3) uint8.
            outputs: names of the outputs wanted.
            timeout_s: after this the call is given up.

        Returns:
            One float32 array per output name, each with N as its first axis.

        Raises:
            ModelUnavailable: the server or the model did not answer, or not with whole arrays.
        """
        ...

    def close(self) -> None:
        """Let go of connections; models stay loaded."""
        ...
