"""A proved fp32 graph -> the same in fewer bits, where that is really faster and judges the same (arrow 6).

The backbone's convolutions go to 8 bits (QDQ, a scale per channel, ranges from training photos); the first
two, the sums and everything behind the taps stay in fp32. The candidate is timed beside fp32 on this machine
and must give the same verdicts with fp32's threshold; else fp32 serves, and the numbers say why. Whether
another machine computes the same is proved there, when the model is loaded (`services.vision.golden`).
"""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from services.domain.model_version import Variant
from services.trainer.dataset import Dataset
from services.trainer.evaluation.image import image_auroc
from services.trainer.synthesis.spoil import spoil
from services.vision.golden import variant_golden_file
from services.vision.runtime import GraphSession
from services.vision.variants import FP32, MODEL_FILE, ONNX_RUNTIME

logger = logging.getLogger(__name__)

INT8 = "int8"
_INT8_FILE, _INT8_GOLDEN = "variants/int8.onnx", "golden/int8.npz"
# A variant has to earn its keep: a tenth of the time, at least 99 % equal verdicts, AUROC within 0.005.
_MAX_TIME_RATIO = 0.9
_MIN_AGREEMENT_RATIO = 0.99
_MAX_AUROC_LOSS = 0.005
# Ranges of activations are those of so many training photos; 8, 16 and 31 gave equal
# verdicts, and each photo takes 30 ms.
_RANGE_PHOTOS = 16
_WARM_UP_PHOTOS = 4
# Good photos, synthetic defects and labelled anomalies whose verdicts are compared, so many of each: 3 s of
# both precisions at 224 px on a slow machine.
_JUDGED_PHOTOS = 64
# A convolution and the activation that ONNX Runtime folds into it. Sums of branches in 8 bits changed scores
# more and saved nothing.
_EIGHT_BIT_OPS = frozenset({"Conv", "Clip", "Relu"})
# The first two convolutions see the finest detail: in 8 bits they alone moved anomalous scores of cookies by
# 7 instead of 4 %, and with three channels 8 bits are slower than fp32.
_FP32_CONVOLUTIONS = 2


@dataclass(frozen=True, slots=True)
class Judged:
    """Photos on which precisions are compared, all (n, S, S, 3) uint8 RGB.

    Attributes:
        normals: training photos, at least one.
        anomalies: synthetic and labelled ones; may be none.
        golden: the golden photos.
    """

    normals: NDArray[np.uint8]
    anomalies: NDArray[np.uint8]
    golden: NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Precisions:
    """What goes into the manifest and the folder.

    Attributes:
        variants: those of the folder, fp32 first.
        serving: name of the fastest.
        files: of the faster ones, by their places in the folder.
        metrics: what was measured of those that were tried, kept or not.
    """

    variants: tuple[Variant, ...]
    serving: str = FP32
    files: Mapping[str, bytes] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Runs:
    """What fp32 and int8, in this order, said of n photos.

    Attributes:
        scores: (n, 2) float32.
        times_ms: (n, 2) float64; by turns, so that a busy machine slows both alike.
    """

    scores: NDArray[np.float32]
    times_ms: NDArray[np.float64]


def photos_to_judge(normals: Dataset, anomalies: Dataset, golden: NDArray[np.uint8], seed: int) -> Judged:
    """Return training photos, spread evenly, a synthetic defect on each of them, and labelled anomalies."""
    rng = np.random.default_rng([seed, _JUDGED_PHOTOS])
    good = _spread(normals)
    spoilt = [
        spoil(one, other, rng).pixels for one, other in zip(good, np.roll(good, 1, axis=0), strict=True)
    ]
    return Judged(good, np.concatenate([np.stack(spoilt), _spread(anomalies)]), golden)


def faster_variants(
    graph: bytes, judged: Judged, threshold: float, *, taps: Collection[str], threads: int = 2
) -> Precisions:
    """Try the graph in 8 bits and keep it where it is faster and judges the same.

    Args:
        graph: a proved fp32 graph, serialised.
        judged: photos to compare on.
        threshold: score from which on a photo is anomalous.
        taps: tensors of the graph in which the backbone ends.
        threads: CPU threads for timing.
    """
    fp32 = GraphSession(graph, threads=threads)
    smaller = in_eight_bits(graph, judged.normals[:_RANGE_PHOTOS], taps)
    if smaller is None:
        ms = np.median([_timed(fp32, photo[None])[1] for photo in judged.normals])
        return Precisions((_fp32_variant(float(ms)),))
    int8 = GraphSession(smaller, threads=threads)
    _run_by_turns(fp32, int8, judged.normals[:_WARM_UP_PHOTOS])
    normal, anomalous = (_run_by_turns(fp32, int8, photos) for photos in (judged.normals, judged.anomalies))
    agreement_ratio, auroc_loss = _parity(normal, anomalous, threshold)
    fp32_ms, int8_ms, time_ratio = _speed(np.concatenate([normal.times_ms, anomalous.times_ms]))
    metrics = {
        "int8_ms": round(int8_ms, 3),
        "int8_time_ratio": round(time_ratio, 3),
        "int8_agreement_ratio": agreement_ratio,
        "int8_auroc_loss": auroc_loss,
    }
    logger.info("fp32 %.1f ms, int8 %.1f ms, equal verdicts %.3f", fp32_ms, int8_ms, agreement_ratio)
    is_equal = agreement_ratio >= _MIN_AGREEMENT_RATIO and auroc_loss <= _MAX_AUROC_LOSS
    if not is_equal or time_ratio > _MAX_TIME_RATIO:
        return Precisions((_fp32_variant(fp32_ms),), metrics=metrics)
    variant = Variant(
        INT8, ONNX_RUNTIME, _INT8_FILE, "", round(int8_ms, 3), agreement_ratio, auroc_loss, _INT8_GOLDEN
    )
    golden = variant_golden_file(int8.infer(judged.golden))
    files = {_INT8_FILE: smaller, _INT8_GOLDEN: golden}
    return Precisions((_fp32_variant(fp32_ms), variant), INT8, files, metrics)


def in_eight_bits(graph: bytes, photos: NDArray[np.uint8], taps: Collection[str]) -> bytes | None:
    """Return the graph with the backbone in 8 bits, None where it has no convolutions before its taps.

    Args:
        graph: fp32, serialised.
        photos: (n, S, S, 3) uint8 RGB, n >= 1, to take the ranges of activations from.
        taps: tensors in which the backbone ends.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    model = onnx.load_model_from_string(graph)
    names = _names_before(model.graph, taps)
    if not names:
        return None
    input_name = model.graph.input[0].name

    class Photos(CalibrationDataReader):  # type: ignore[misc]  # the library has no types
        def __init__(self) -> None:
            self._left: Iterator[NDArray[np.uint8]] = iter(photos)

        def get_next(self) -> dict[str, NDArray[Any]] | None:
            one = next(self._left, None)
            return None if one is None else {input_name: one[None]}

    # It warns that constants were not folded first; here they were, by whoever drew the graph.
    model.metadata_props.add(key="onnx.quant.pre_process", value="onnxruntime.quant")
    with tempfile.TemporaryDirectory(prefix="loupe-int8-") as folder:
        made = Path(folder) / MODEL_FILE
        quantize_static(
            model,
            str(made),
            Photos(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            # Unsigned activations by signed weights: the only pair that AVX-512 VNNI multiplies directly.
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=sorted(_EIGHT_BIT_OPS),
            nodes_to_quantize=names,
        )
        return made.read_bytes()


def _spread(dataset: Dataset) -> NDArray[np.uint8]:
    """Return (n, S, S, 3) of at most `_JUDGED_PHOTOS` photos, evenly spread."""
    at = np.linspace(0, len(dataset) - 1, _JUDGED_PHOTOS) if len(dataset) else np.zeros(0)
    chosen = np.unique(at.astype(int)).tolist()
    none = np.zeros((0, dataset.input_px, dataset.input_px, 3), np.uint8)
    return np.stack([dataset.pixels(one) for one in chosen]) if chosen else none


def _names_before(graph: onnx.GraphProto, taps: Collection[str]) -> list[str]:
    """Return the nodes before the taps that go to 8 bits."""
    made_by = {output: node for node in graph.node for output in node.output}
    needed: set[str] = set()  # tensors that the taps are computed from
    waiting = [tap for tap in taps if tap in made_by]
    while waiting:
        tensor = waiting.pop()
        if tensor in made_by and tensor not in needed:
            needed.add(tensor)
            waiting.extend(made_by[tensor].input)
    depths: dict[str, int] = {}  # convolutions that a tensor has been through
    names: list[str] = []
    for node in graph.node:  # in the order of computation
        depth = max((depths.get(one, 0) for one in node.input), default=0) + (node.op_type == "Conv")
        depths.update(dict.fromkeys(node.output, depth))
        is_before = not needed.isdisjoint(node.output)
        if is_before and node.op_type in _EIGHT_BIT_OPS and depth > _FP32_CONVOLUTIONS:
            names.append(node.name)
    return names


def _run_by_turns(fp32: GraphSession, int8: GraphSession, photos: NDArray[np.uint8]) -> _Runs:
    """Have both judge every photo alone, as the model's server does, one right after the other."""
    scores, times = [], []
    for photo in photos:
        results = [_timed(one, photo[None]) for one in (fp32, int8)]
        scores.append([score for score, _ in results])
        times.append([ms for _, ms in results])
    return _Runs(np.array(scores, np.float32).reshape(-1, 2), np.array(times).reshape(-1, 2))


def _timed(session: GraphSession, batch: NDArray[np.uint8]) -> tuple[float, float]:
    """Return the score of a batch of one, and the milliseconds it took."""
    began_monotonic_s = time.perf_counter()
    found = session.infer(batch)
    return float(found.scores[0]), (time.perf_counter() - began_monotonic_s) * 1000


def _speed(times_ms: NDArray[np.float64]) -> tuple[float, float, float]:
    """Return the median milliseconds of fp32 and int8, and the median of their ratios, of (n, 2) times."""
    fp32_ms, int8_ms = np.median(times_ms, axis=0).tolist()
    return fp32_ms, int8_ms, float(np.median(times_ms[:, 1] / times_ms[:, 0]))


def _parity(normal: _Runs, anomalous: _Runs, threshold: float) -> tuple[float, float]:
    """Return the share of equal verdicts, and the image AUROC lost."""
    verdicts = np.concatenate([normal.scores, anomalous.scores]) >= threshold
    agreement_ratio = float(np.mean(verdicts[:, 0] == verdicts[:, 1]))
    if not len(anomalous.scores):
        return agreement_ratio, 0.0
    before, after = (image_auroc(normal.scores[:, at], anomalous.scores[:, at]) for at in (0, 1))
    return agreement_ratio, max(0.0, before - after)


def _fp32_variant(ms: float) -> Variant:
    return Variant(FP32, ONNX_RUNTIME, MODEL_FILE, "", round(ms, 3))
