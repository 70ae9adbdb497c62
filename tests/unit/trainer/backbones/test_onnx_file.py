"""Networks of the user's own: every shape people bring, and a sentence for what cannot be used."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from services.domain.errors import BadRequest, CorruptModel, LoupeError
from services.trainer.backbones.backbone_file import BackboneFile
from services.trainer.backbones.onnx_file import read_onnx_file
from services.trainer.features import FeatureExtractor
from services.vision.runtime import open_session
from tests.unit.trainer.backbones.networks import DOUBLE, FLOAT16, UINT8, Network

SUFFIXES = {"a": "f4", "b": "f8", "c": "f16"}


def photos(side_px: int = 224, count: int = 3) -> NDArray[np.uint8]:
    return np.random.default_rng(5).integers(0, 256, (count, side_px, side_px, 3)).astype(np.uint8)


def features_of(backbone: BackboneFile) -> dict[str, NDArray[Any]]:
    return dict(FeatureExtractor(backbone).extract(photos(backbone.input_px)))


def expected_of(path: Path, side_px: int, mean: float = 127.5, std: float = 127.5) -> dict[str, NDArray[Any]]:
    """Run the plain float NCHW network by itself, photo by photo."""
    session = open_session(path, threads=1)
    scaled = ((photos(side_px) - np.float32(mean)) / np.float32(std)).transpose(0, 3, 1, 2)
    names = [one.name for one in session.get_outputs()]
    each = [session.run(names, {"photo": one[None].astype(np.float32)}) for one in scaled]
    return {name: np.concatenate(values) for name, values in zip(names, zip(*each, strict=True), strict=True)}


def test_a_plain_network_gives_its_own_features(tmp_path: Path) -> None:
    path = Network().write(tmp_path)
    backbone = read_onnx_file(path)
    found = features_of(backbone)
    assert (backbone.input_px, backbone.identity.name) == (224, "tiny")
    assert backbone.identity.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    for name, value in expected_of(path, 224).items():
        np.testing.assert_allclose(found[SUFFIXES[name]], value, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "network",
    [
        Network(("N", "H", "W", 3), is_channels_last=True),
        Network((1, 3, 224, 224)),
        Network((4, 3, 224, 224)),
        Network((1, 224, 224, 3), is_channels_last=True),
        Network(("N", "C", "H", "W")),
        Network(dtype=DOUBLE),
        Network(opset=11),
        Network(opset=21),
        Network(name="f8"),
        Network(name="pixels"),
    ],
    ids=["nhwc", "batch1", "batch4", "nhwc1", "all-free", "double", "opset11", "opset21", "f8", "pixels"],
)
def test_shape_and_age_of_the_network_do_not_matter(network: Network, tmp_path: Path) -> None:
    plain = expected_of(Network().write(tmp_path, "plain.onnx"), 224)
    found = features_of(read_onnx_file(network.write(tmp_path)))
    for name, tap in SUFFIXES.items():
        np.testing.assert_allclose(found[tap], plain[name], rtol=1e-4, atol=1e-4)


def test_half_precision_is_near(tmp_path: Path) -> None:
    plain = expected_of(Network().write(tmp_path, "plain.onnx"), 224)
    found = features_of(read_onnx_file(Network(dtype=FLOAT16).write(tmp_path)))
    np.testing.assert_allclose(found["f4"], plain["a"], atol=0.05)
    assert found["f4"].dtype == np.float32


def test_bytes_are_not_normalised(tmp_path: Path) -> None:
    plain = expected_of(Network().write(tmp_path, "plain.onnx"), 224, 0, 1)
    found = features_of(read_onnx_file(Network(dtype=UINT8).write(tmp_path)))
    np.testing.assert_allclose(found["f16"], plain["c"], rtol=1e-4, atol=0.1)


@pytest.mark.parametrize("side_px", [64, 160, 320])
def test_a_fixed_size_becomes_the_inputs(side_px: int, tmp_path: Path) -> None:
    backbone = read_onnx_file(Network((1, 3, side_px, side_px)).write(tmp_path))
    assert backbone.input_px == side_px
    assert features_of(backbone)["f8"].shape == (3, 6, side_px // 8, side_px // 8)


def test_several_of_one_stride_are_the_last(tmp_path: Path) -> None:
    path = Network(outputs=("a", "a_again", "flat")).write(tmp_path)
    found = features_of(read_onnx_file(path))
    assert set(found) == {"f4", "pixels"}
    np.testing.assert_allclose(found["f4"], expected_of(path, 224)["a_again"], rtol=1e-4, atol=1e-4)


def pooled(output: str, side_px: int) -> list[onnx.NodeProto]:
    return [
        helper.make_node("AveragePool", ["c"], [output], kernel_shape=[side_px] * 2, strides=[side_px] * 2)
    ]


def test_coarse_maps_are_dropped_beside_finer_ones(tmp_path: Path) -> None:
    both = Network(outputs=("c", "coarse"), nodes=pooled("coarse", 2)).write(tmp_path)
    alone = Network(outputs=("coarse",), nodes=pooled("coarse", 2)).write(tmp_path, "alone.onnx")
    assert set(FeatureExtractor(read_onnx_file(both)).taps) == {"f16"}
    assert set(FeatureExtractor(read_onnx_file(alone)).taps) == {"f32"}


@pytest.mark.parametrize("opset", [17, 18, 22])
def test_reductions_of_either_spelling_are_read(opset: int, tmp_path: Path) -> None:
    axes = numpy_helper.from_array(np.array([1]), "axes")
    node = (
        helper.make_node("ReduceMean", ["b"], ["one"], axes=[1])
        if opset < 18
        else helper.make_node("ReduceMean", ["b", "axes"], ["one"])
    )
    network = Network(outputs=("b", "one"), opset=opset, nodes=[node], constants=[axes])
    backbone = read_onnx_file(network.write(tmp_path))
    plain = expected_of(Network().write(tmp_path, "plain.onnx"), 224)
    np.testing.assert_allclose(
        features_of(backbone)["f8"], plain["b"].mean(axis=1, keepdims=True), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize(
    ("operator", "opset", "attributes"),
    [("Gelu", 20, {}), ("Gelu", 22, {"approximate": "tanh"}), ("Mish", 22, {})],
)
def test_operators_of_later_opsets_are_spelt_out(
    operator: str, opset: int, attributes: dict[str, str], tmp_path: Path
) -> None:
    nodes = [
        helper.make_node("Tanh", ["b"], ["small"]),
        helper.make_node(operator, ["small"], ["bent"], **attributes),
        helper.make_node(operator, ["bent"], ["twice"], **attributes),
    ]
    path = Network(outputs=("twice",), nodes=nodes, opset=opset).write(tmp_path)
    found = features_of(read_onnx_file(path))
    np.testing.assert_allclose(found["f8"], expected_of(path, 224)["twice"], rtol=1e-4, atol=1e-4)


def test_operators_of_onnx_runtimes_own_are_taken(tmp_path: Path) -> None:
    node = helper.make_node("QuickGelu", ["b"], ["bent"], domain="com.microsoft")
    found = features_of(read_onnx_file(Network(outputs=("bent",), nodes=[node]).write(tmp_path)))
    plain = expected_of(Network().write(tmp_path, "plain.onnx"), 224)["b"]
    np.testing.assert_allclose(
        found["f8"], plain / (1 + np.exp(-np.maximum(1.702 * plain, -80))), rtol=1e-3, atol=1e-3
    )


def test_what_the_file_says_of_itself_is_taken(tmp_path: Path) -> None:
    metadata = {"name": "houses", "license": "MIT", "mean": "10, 20, 30", "std": "2"}
    path = Network(metadata=metadata).write(tmp_path)
    backbone = read_onnx_file(path)
    assert (backbone.identity.name, backbone.identity.licence) == ("houses", "MIT")
    assert backbone.warnings == ()
    mean = np.array([10, 20, 30], np.float32)
    session = open_session(path, threads=1)
    scaled = ((photos() - mean) / np.float32(2)).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(
        features_of(backbone)["f4"], session.run(["a"], {"photo": scaled})[0], rtol=1e-4, atol=1e-3
    )


def test_the_file_beside_it_goes_before_and_the_option_first(tmp_path: Path) -> None:
    path = Network(metadata={"licence": "MIT", "name": "old", "std": "9"}).write(tmp_path)
    said = {"licence": "BSD-3-Clause", "name": "new", "mean": 0, "std": [1, 1, 1]}
    path.with_suffix(".json").write_text(json.dumps(said))
    backbone = read_onnx_file(path)
    assert (backbone.identity.name, backbone.identity.licence) == ("new", "BSD-3-Clause")
    np.testing.assert_allclose(
        features_of(backbone)["f4"], expected_of(path, 224, 0, 1)["a"], rtol=1e-4, atol=0.1
    )
    assert read_onnx_file(path, "Apache-2.0").identity.licence == "Apache-2.0"


def test_an_unknown_licence_is_warned_of(tmp_path: Path) -> None:
    path = Network().write(tmp_path)
    backbone = read_onnx_file(path)
    assert backbone.identity.licence == "unknown"
    assert "--backbone-licence" in backbone.warnings[0]
    assert read_onnx_file(path, "MIT").warnings == ()


def test_weights_in_another_file_are_read_and_part_of_the_hash(tmp_path: Path) -> None:
    path = tmp_path / "split.onnx"
    onnx.save_model(
        Network().model(), path, save_as_external_data=True, location="split.bin", size_threshold=0
    )
    backbone = read_onnx_file(path)
    plain = expected_of(Network().write(tmp_path, "plain.onnx"), 224)
    np.testing.assert_allclose(features_of(backbone)["f8"], plain["b"], rtol=1e-4, atol=1e-4)
    weights = tmp_path / "split.bin"
    weights.write_bytes(bytes(len(weights.read_bytes())))
    assert read_onnx_file(path).identity.sha256 != backbone.identity.sha256
    weights.unlink()
    with pytest.raises(BadRequest, match=r"split\.bin beside it, which is missing"):
        read_onnx_file(path)


def test_weights_outside_of_its_folder_are_not_read(tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    (tmp_path / "secret.bin").write_bytes(bytes(100_000))
    onnx.save_model(
        Network().model(), inside / "x.onnx", save_as_external_data=True, location="far.bin", size_threshold=0
    )
    model = onnx.load(inside / "x.onnx", load_external_data=False)
    for tensor in model.graph.initializer:
        next(one for one in tensor.external_data if one.key == "location").value = "../secret.bin"
    (inside / "x.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(BadRequest, match="cannot be read"):
        read_onnx_file(inside / "x.onnx")


def reshaped_to_one() -> Network:
    """A network that can only take one photo at a time."""
    shape = numpy_helper.from_array(np.array([1, 8, 14, 14]), "shape")
    node = helper.make_node("Reshape", ["c", "shape"], ["stiff"])
    return Network((1, 3, 224, 224), outputs=("stiff",), nodes=[node], constants=[shape])


def two_inputs() -> Network:
    """A network that wants something else beside the photo."""
    return Network(
        outputs=("shifted",), nodes=[helper.make_node("Add", ["a", "shift"], ["shifted"])], extra="shift"
    )


def mixing_the_batch() -> Network:
    """A network whose features depend on the other photos."""
    node = helper.make_node("ReduceMean", ["c"], ["batch_mean"], axes=[0])
    apart = helper.make_node("Sub", ["c", "batch_mean"], ["mixed"])
    return Network((1, 3, 224, 224), outputs=("mixed",), nodes=[node, apart])


@pytest.mark.parametrize(
    ("network", "sentence"),
    [
        (Network((1, 4, 224, 224)), "has to take 3 channels"),
        (Network((1, 3, 224, 320)), "have to be square"),
        (Network((1, 3, 299, 299)), "multiple of 16"),
        (Network((1, 3, 32, 32)), "at least 64"),
        (Network((1, 3, 224)), "cannot load"),
        (Network(outputs=("flat",)), "gives no feature maps"),
        (Network(outputs=("b",), pads=0), "gives no feature maps"),
        (Network(opset=1000), "opset 1000"),
        (
            Network(nodes=[helper.make_node("Telepathy", ["a"], ["mind"])], outputs=("mind",)),
            "lacks: Telepathy",
        ),
        (
            Network(nodes=[helper.make_node("Rays", ["a"], ["x"], domain="org.x")], outputs=("x",)),
            r"lacks: org\.x:Rays",
        ),
        (two_inputs(), "has to take one picture"),
        (Network(("N", 3)), "cannot load"),
        (reshaped_to_one(), "one photo at a time"),
        (mixing_the_batch(), "several photos at a time"),
    ],
)
def test_what_cannot_be_used_is_told_in_a_sentence(network: Network, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match=sentence) as caught:
        read_onnx_file(network.write(tmp_path))
    assert "\n" not in caught.value.message
    assert "tiny.onnx" in caught.value.message


@pytest.mark.parametrize("scale", [np.nan, 1e30])
def test_features_that_are_not_finite_are_refused(scale: float, tmp_path: Path) -> None:
    with pytest.raises(CorruptModel, match="NaN or infinity"):
        read_onnx_file(Network(weight_scale=scale).write(tmp_path))


def test_features_that_stop_being_finite_later_are_refused(tmp_path: Path) -> None:
    # 1 / mean of |x|: finite on any photo but one whose pixels are all equal to the mean.
    nodes = [
        helper.make_node("Abs", ["a"], ["size"]),
        helper.make_node("ReduceMean", ["size"], ["mean_size"], axes=[1, 2, 3]),
        helper.make_node("Div", ["a", "mean_size"], ["relative"]),
    ]
    network = Network(outputs=("relative",), nodes=nodes, metadata={"mean": "7"})
    extractor = FeatureExtractor(read_onnx_file(network.write(tmp_path)))
    extractor.extract(photos())
    with pytest.raises(CorruptModel, match="NaN or infinity as f4"):
        extractor.extract(np.full((1, 224, 224, 3), 7, np.uint8))


@pytest.mark.parametrize(
    "data",
    [b"", b"GIF89a nothing of the kind", b"\x08\x08", os.urandom(1000)],
    ids=["0", "gif", "bare", "noise"],
)
def test_what_is_no_onnx_file_is_refused(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "cat.onnx"
    path.write_bytes(data)
    with pytest.raises(BadRequest, match=r"cat\.onnx is not an ONNX file"):
        read_onnx_file(path)


def test_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="not a file; give an ONNX file, or `random`"):
        read_onnx_file(tmp_path)


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ("{", "not JSON"),
        ("[]", "an object"),
        ('{"mean": "dark"}', "one number or three"),
        ('{"mean": [1, 2]}', "one number or three"),
        ('{"mean": NaN}', "one number or three"),
        ('{"std": {"r": 1}}', "one number or three"),
        ('{"std": 0}', "more than 0"),
        ('{"sha256": "00"}', "was changed"),
    ],
)
def test_nonsense_beside_it_is_refused(said: str, sentence: str, tmp_path: Path) -> None:
    path = Network().write(tmp_path)
    path.with_suffix(".json").write_text(said)
    with pytest.raises(BadRequest, match=sentence):
        read_onnx_file(path)


@pytest.mark.parametrize("cut", [0.2, 0.5, 0.9, 0.99])
def test_a_truncated_file_is_a_sentence(cut: float, tmp_path: Path) -> None:
    data = Network().model().SerializeToString()
    path = tmp_path / "cut.onnx"
    path.write_bytes(data[: int(len(data) * cut)])
    with pytest.raises(LoupeError, match=r"cut\.onnx"):
        read_onnx_file(path)


@pytest.mark.photos
@pytest.mark.parametrize(
    ("file", "channels"),
    [("mobilenet_v1_0.25_224_fp32.onnx", (64, 128)), ("mobilenet_v1_1.0_224_w8.onnx", (256, 512))],
)
def test_networks_for_photos_are_taken_as_they_are(file: str, channels: tuple[int, int], data: Path) -> None:
    path = data / "backbones" / file
    backbone = read_onnx_file(path)
    assert backbone.identity.licence == "Apache-2.0"
    assert backbone.warnings == ()
    taps = FeatureExtractor(backbone).taps
    assert {name: (tap.channels, tap.grid) for name, tap in taps.items()} == {
        "f8": (channels[0], 28),
        "f16": (channels[1], 14),
    }
    found = features_of(backbone)
    session = open_session(path, threads=1)
    scaled = ((photos() - np.float32(127.5)) / np.float32(127.5)).transpose(0, 3, 1, 2)
    expected = session.run(["feat_s8"], {"image": scaled})[0]
    np.testing.assert_allclose(found["f8"], expected, rtol=1e-3, atol=1e-3)
