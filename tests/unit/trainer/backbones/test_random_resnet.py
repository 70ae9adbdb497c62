"""The backbone without weights: orthogonal, calibrated, the same from the same seed."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from services.trainer.backbones.random_resnet import LICENCE, random_resnet
from services.trainer.features import FeatureExtractor
from services.vision.decode import decode
from services.vision.runtime import open_session
from tests.unit.trainer.pictures import picture


@pytest.fixture(scope="module")
def photos() -> NDArray[np.uint8]:
    return np.stack([decode(picture(seed)).pixels for seed in range(4)])


def test_taps_and_identity() -> None:
    backbone = random_resnet(3)
    taps = FeatureExtractor(backbone).taps
    assert {name: (tap.channels, tap.grid) for name, tap in taps.items()} == {
        "f4": (64, 56),
        "f8": (128, 28),
        "f16": (256, 14),
    }
    assert (backbone.identity.name, backbone.identity.licence) == ("random-resnet18-seed3", LICENCE)


def test_seed_and_photos_decide_every_byte(photos: NDArray[np.uint8]) -> None:
    assert random_resnet(1, photos=photos).model == random_resnet(1, photos=photos).model
    others = [random_resnet(2, photos=photos), random_resnet(1, photos=photos[:2]), random_resnet(1)]
    assert len({one.identity.sha256 for one in (random_resnet(1, photos=photos), *others)}) == 4


def test_every_layer_is_normal_on_the_photos_it_was_calibrated_on(photos: NDArray[np.uint8]) -> None:
    model = onnx.load_model_from_string(random_resnet(0, photos=photos).model)
    layers = [node.output[0] for node in model.graph.node if node.op_type == "Conv"]
    del model.graph.output[:]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in layers)
    for values in open_session(model.SerializeToString(), threads=2).run(layers, {"pixels": photos}):
        mean, sd = values.mean(axis=(0, 2, 3)), values.std(axis=(0, 2, 3))
        np.testing.assert_allclose(mean, 0, atol=1e-3)
        # sd² = v / (v + 10⁻³): a little below 1, and far below only for channels that hardly vary.
        assert np.median(sd) == pytest.approx(1, abs=0.02)
        assert sd.max() < 1.001


def test_kernels_are_orthogonal_but_for_their_scale(photos: NDArray[np.uint8]) -> None:
    model = onnx.load_model_from_string(random_resnet(0, photos=photos).model)
    weights = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
    kernels = [weights[node.input[1]] for node in model.graph.node if node.op_type == "Conv"]
    assert len(kernels) == 15  # the stem, 3 stages of 2 blocks of 2, and 2 ways past
    for kernel in kernels[:3]:
        rows = kernel.reshape(len(kernel), -1).astype(np.float64)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        np.testing.assert_allclose(rows @ rows.T, np.eye(len(rows)), atol=1e-5)


def test_photos_that_are_all_one_colour_are_fine() -> None:
    flat = np.full((2, 224, 224, 3), 255, np.uint8)
    found: Mapping[str, NDArray[np.float32]] = FeatureExtractor(random_resnet(0, photos=flat)).extract(flat)
    assert max(float(np.abs(found[name]).max()) for name in ("f4", "f8", "f16")) < 1e3
