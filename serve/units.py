"""What an inference unit is to its callers: batches of frames in, outcomes or an error back (arrow 2).

Errors travel inside the answer, by name, because an exception that crosses Ray loses its type.
Does not retry; `serve.judging` does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from services.domain.errors import FrameCrashesModel, LoupeError, Rejected, RetryLater
from services.domain.frame import Frame
from services.wire.batch import Outcome, Rejection

# Of 8, 16 and 32 frames a call, 16 was as fast as 32 and waits half as long (CONTRIBUTING, decisions).
MAX_BATCH_FRAMES = 16


class Units(Protocol):
    """The inference units of all hosted projects."""

    def inspect(self, project: str, frames: Sequence[Frame]) -> tuple[Outcome, ...]:
        """Have one unit of `project` judge a batch; one outcome per frame, in order. Blocks.

        Raises:
            RetryLater: nobody could judge now; nothing is said about the frames.
            FrameCrashesModel: a healthy unit failed on this batch. Chance, or one of the frames.
        """
        ...

    def inspect_with_mask(self, project: str, frame: Frame) -> tuple[Outcome, bytes]:
        """Have one unit judge one frame and draw its mask; the PNG is empty where it has no verdict. Blocks.

        Raises:
            RetryLater: see `inspect`.
            FrameCrashesModel: see `inspect`.
        """
        ...


def failure_of(error: LoupeError, count: int) -> tuple[Outcome, ...]:
    """Return the answer of a unit that could not judge a batch of `count` frames."""
    return (Rejection(error.cause, error.message),) * count


def raise_failure(outcomes: tuple[Outcome, ...]) -> tuple[Outcome, ...]:
    """Return the outcomes of an answer, or raise the error that `failure_of` put into it."""
    first = outcomes[0] if outcomes else None
    if isinstance(first, Rejection):
        error = error_named(first)
        if isinstance(error, RetryLater | FrameCrashesModel):
            raise error
    return outcomes


def error_named(rejection: Rejection) -> LoupeError:
    """Return the error of the tree that a rejection names; an unknown name is a plain `Rejected`."""
    return _BY_NAME.get(rejection.cause, Rejected)(rejection.reason)


def _tree(root: type[LoupeError]) -> dict[str, type[LoupeError]]:
    below = [pair for child in root.__subclasses__() for pair in _tree(child).items()]
    return {root.__name__: root, **dict(below)}


_BY_NAME = _tree(LoupeError)
