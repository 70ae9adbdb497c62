"""Thresholds of named types: what marks masks and names photos best, by counting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from services.domain.label import Verdict
from services.trainer.dataset import Dataset, LabelledImage
from services.trainer.families.protocol import FitData
from services.trainer.features import FeatureExtractor, Features
from services.trainer.graph_builder import GraphBuilder
from services.trainer.named_types import named_types
from services.vision.masks import read_mask
from tests.unit.trainer.pictures import picture, pictures


@dataclass(frozen=True)
class Known:
    """A type head that says what a test wants, by the group of a photo."""

    types: tuple[str, ...]
    planes: Mapping[int, NDArray[np.float32]]

    def probabilities(self, features: Features, left_out: Sequence[int] | None = None) -> NDArray[np.float32]:
        assert left_out is not None  # only cross-fitted numbers may choose
        assert len(features["pixels"]) == len(left_out)
        return np.stack([self.planes[group] for group in left_out])

    def draw(self, draw: GraphBuilder, taps: Mapping[str, str]) -> str:  # noqa: ARG002 - never drawn
        raise AssertionError


def _mask() -> bytes:
    """Return a mask of the upper left quarter, as PGM."""
    marked = np.zeros((160, 160), np.uint8)
    marked[:80, :80] = 255
    return read_mask(b"P5 160 160 255\n" + marked.tobytes(), (160, 160))


@pytest.fixture
def data(extractor: FeatureExtractor) -> FitData:
    """Two good photos (groups 0 and 1), two with a masked dent (2 and 3), one only called dented (4)."""
    bad = [
        LabelledImage(
            picture(50 + one), f"{one}", Verdict.ANOMALY, ("dent",), {"dent": _mask()} if one < 2 else {}
        )
        for one in range(3)
    ]
    return FitData(Dataset(pictures(2)), np.arange(2, dtype=np.int32), Dataset(bad), extractor)


def plane(inside: float, outside: float = 0.0) -> NDArray[np.float32]:
    """Return (1, 56, 56): one value in the upper left quarter, another elsewhere."""
    found = np.full((1, 56, 56), outside, np.float32)
    found[0, :28, :28] = inside
    return found


def threshold(data: FitData, planes: Mapping[int, NDArray[np.float32]]) -> float:
    (dent,) = named_types(Known(("dent",), planes), data)
    assert dent.name == "dent"
    assert dent.colour == "#d55e00"
    return dent.threshold


def test_it_lies_between_the_inside_and_the_outside(data: FitData) -> None:
    bad = {group: plane(0.72, 0.48) for group in (2, 3, 4)}
    assert threshold(data, {0: plane(0.1), 1: plane(0.1), **bad}) == 0.5


def test_good_photos_that_would_show_the_type_raise_it(data: FitData) -> None:
    speck = plane(0.1)
    speck[0, 40, 40] = 0.62
    bad = {group: plane(0.72, 0.48) for group in (2, 3, 4)}
    assert threshold(data, {0: speck, 1: plane(0.1), **bad}) == 0.65


def test_no_types_have_no_thresholds(data: FitData) -> None:
    assert named_types(None, data) == ()
