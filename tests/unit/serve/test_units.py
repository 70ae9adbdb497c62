"""Errors that travel between stream and units."""

from __future__ import annotations

import pytest

from serve.units import error_named, failure_of, raise_failure
from services.domain.errors import FrameCrashesModel, LoupeError, ModelUnavailable, Rejected
from services.wire.batch import Rejection, decode_frames, decode_outcomes, encode_frames, encode_outcomes
from services.wire.frame import decode_frame
from tests.unit.serve.fakes import frame_record


def leaves(root: type[LoupeError] = LoupeError) -> list[type[LoupeError]]:
    below = [leaf for child in root.__subclasses__() for leaf in leaves(child)]
    return below or [root]


@pytest.mark.parametrize("kind", leaves())
def test_an_error_keeps_its_kind_over_the_wire(kind: type[LoupeError]) -> None:
    (rejection,) = decode_outcomes(encode_outcomes(failure_of(kind("A sentence."), 1)))
    assert isinstance(rejection, Rejection)
    error = error_named(rejection)
    assert type(error) is kind
    assert error.message == "A sentence."


@pytest.mark.parametrize("kind", [ModelUnavailable, FrameCrashesModel])
def test_a_unit_that_could_not_judge_is_an_error_to_its_caller(kind: type[LoupeError]) -> None:
    with pytest.raises(kind, match=r"^Why\.$"):
        raise_failure(failure_of(kind("Why."), 3))


def test_rejected_frames_are_outcomes() -> None:
    outcomes = (Rejection("UnreadableImage", "bad"), Rejection("NewerError", "unknown here"))
    assert raise_failure(outcomes) == outcomes
    assert type(error_named(outcomes[1])) is Rejected


def test_batches_joined_frame_by_frame_are_read_as_one() -> None:
    frames = [decode_frame(frame_record(index, b"image %d" % index)) for index in range(3)]
    assert decode_frames(b"".join(encode_frames([frame]) for frame in frames)) == (tuple(frames), False)
