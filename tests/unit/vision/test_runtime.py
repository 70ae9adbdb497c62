"""A model folder in this process: verified, proved, in the precision that holds here."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from services.domain.errors import CorruptModel
from services.vision.golden import read_golden
from services.vision.runtime import GraphSession, OnnxModel, verify_folder
from services.vision.scoring import judge
from services.vision.variants import fp32_of, to_serve
from tests.unit.serve.models import write_version

BATCH = np.full((2, 16, 16, 3), 255, np.uint8)
# What the path from a photo to a verdict must not bring along: together 3 s and 1 GB.
TOO_MUCH = ("torch", "scipy", "ray", "onnx", "sqlalchemy", "tritonclient")


def change_manifest(folder: Path, **changes: object) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(("gain", "serving"), [(1.02, "int8"), (1.5, "fp32")])
def test_the_faster_variant_runs_where_it_proves_itself(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, gain: float, serving: str
) -> None:
    model = OnnxModel(write_version(tmp_path, faster_gain=gain))
    assert model.variant.name == serving
    assert model.infer(BATCH).scores.tolist() == pytest.approx([10.2 if serving == "int8" else 10] * 2)
    assert ("fp32 serves instead" in caplog.text) == (serving == "fp32")


def test_a_variant_that_cannot_be_loaded_is_passed_over(tmp_path: Path) -> None:
    folder = write_version(tmp_path, faster_gain=1.0)
    (folder / "variants" / "int8.onnx").write_bytes(b"of a newer runtime")
    digest = hashlib.sha256(b"of a newer runtime").hexdigest()
    files = json.loads((folder / "manifest.json").read_text())["files"]
    change_manifest(folder, files={**files, "variants/int8.onnx": digest})
    assert OnnxModel(folder).variant.name == "fp32"


@pytest.mark.parametrize("place", ["variants/int8.onnx", "golden/int8.npz"])
def test_a_variant_whose_files_have_no_hash_is_refused(tmp_path: Path, place: str) -> None:
    folder = write_version(tmp_path, faster_gain=1.0)
    files = json.loads((folder / "manifest.json").read_text())["files"]
    del files[place]
    change_manifest(folder, files=files)
    with pytest.raises(CorruptModel, match=f"{place} is missing or was changed"):
        OnnxModel(folder)


def test_a_wrong_fp32_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CorruptModel, match=r"in fp32 computes other numbers than when it was trained"):
        OnnxModel(write_version(tmp_path, lie=0.1))


def test_folders_of_the_first_release_load_and_judge(tmp_path: Path) -> None:
    folder = write_version(tmp_path)
    document = json.loads((folder / "manifest.json").read_text())
    for later in ("variants", "serving", "types", "candidates", "tiles", "reference", "parent", "intervals"):
        del document[later]
    (folder / "manifest.json").write_text(json.dumps(document))
    manifest = verify_folder(folder)
    assert [one.name for one in to_serve(manifest)] == ["fp32"]
    assert fp32_of(manifest).file == "model.onnx"
    model = OnnxModel(folder)
    assert [judge(one, manifest).is_anomalous for one in model.infer(BATCH)] == [True, True]
    assert judge(next(iter(model.infer(BATCH))), manifest).regions[0].anomaly_type == "anomaly"


def test_a_folder_without_golden_photos_proves_nothing(tmp_path: Path) -> None:
    folder = write_version(tmp_path)
    for name, content in (
        ("inputs", np.zeros((0, 16, 16, 3), np.uint8)),
        ("scores", np.zeros(3, np.float32)),
    ):
        np.save(folder / "golden" / f"{name}.npy", content)
        with pytest.raises(CorruptModel, match="golden"):
            read_golden(folder)
    (folder / "golden" / "inputs.npy").write_bytes(b"no array")
    with pytest.raises(CorruptModel, match="cannot be read"):
        read_golden(folder)


def test_a_graph_tells_types_and_embedding_where_it_has_them() -> None:
    nodes = [
        helper.make_node("Cast", ["pixels"], ["map4"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["map4", "channel"], ["map"], keepdims=0),
        helper.make_node("ReduceMean", ["map", "plane"], ["score"], keepdims=0),
        helper.make_node("Identity", ["score"], ["embedding"]),
        helper.make_node("Transpose", ["map4"], ["types"], perm=[0, 3, 1, 2]),
    ]
    shapes: dict[str, list[str | int | None]] = {
        "embedding": ["N"],
        "types": ["N", 3, 4, 4],
        "map": ["N", 4, 4],
        "score": ["N"],
    }
    constants = [
        helper.make_tensor("channel", TensorProto.INT64, [1], [3]),
        helper.make_tensor("plane", TensorProto.INT64, [2], [1, 2]),
    ]
    graph = helper.make_graph(
        nodes,
        "types",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["N", 4, 4, 3])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    found = GraphSession(model.SerializeToString()).infer(np.full((2, 4, 4, 3), 7, np.uint8))
    assert found.types is not None
    assert found.types.shape == (2, 3, 4, 4)
    first, _ = found
    assert (first.score, first.embedding) == (7, 7)
    assert first.types is not None
    assert first.types.shape == (3, 4, 4)


@pytest.mark.parametrize(
    "imported",
    ["services.vision.runtime, services.vision.scoring, onnxruntime", "services.embedded.judges"],
    ids=["in this process", "by the stack"],
)
def test_judging_brings_no_training_libraries_along(imported: str) -> None:
    script = f"import sys, {imported}; print([one for one in {TOO_MUCH} if one in sys.modules])"
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"
