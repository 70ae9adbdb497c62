"""Photos of good parts -> a model folder: the whole recipe in one call (arrow 6).

Read, learn, calibrate by cross-fitting, fuse into one graph, prove that the graph gives the
trainer's numbers, write the folder. No torch, no network, and memory that does not grow with the
number of photos. Does not upload or announce (`services.trainer.registry`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from services.domain.errors import BadRequest, CorruptModel, NotEnoughImages
from services.domain.label import Verdict
from services.domain.model_version import DEFAULT_OPTIONS, FitOptions, Manifest
from services.trainer.backbones.opening import calibrated, open_backbone
from services.trainer.calibration import Calibrated, calibrate
from services.trainer.card.page import render_card
from services.trainer.dataset import Dataset, LabelledImage, SkippedImage
from services.trainer.evaluation.image import image_auroc, share_from
from services.trainer.families.memory import MemoryFamily
from services.trainer.families.protocol import Budget, Family, FitData, Head
from services.trainer.features import FeatureExtractor
from services.trainer.graph import fuse, inputs_of, outputs_of
from services.trainer.model_folder import version_exists, write_folder
from services.trainer.tiling import check_tiles, tiled_px
from services.vision.golden import Golden
from services.vision.runtime import GraphSession

logger = logging.getLogger(__name__)

MIN_NORMALS = 2
_GOLDEN_NORMALS, _GOLDEN_ANOMALIES = 3, 2
# fp32 sums in another order; scores are of the order of 1 to 50.
_GRAPH_TOLERANCE = 1e-3

# Called with the stage (`read`, `learn`, `calibrate`, `write`) and the share of it done (0-1).
Progress = Callable[[str, float], None]


@dataclass(frozen=True, slots=True)
class FittedModel:
    """What a fit left on disk.

    Attributes:
        folder: the model folder, complete.
        manifest: as written in it.
        skipped: photos that were left out, with reasons.
    """

    folder: Path
    manifest: Manifest
    skipped: tuple[SkippedImage, ...]


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to fit, apart from the photos.

    Attributes:
        family: which heads to fit.
        budget: what they may cost.
        backbone: see `services.trainer.backbones.opening.open_backbone`.
        backbone_licence: of its weights, where the file does not say.
        threads: CPU threads.
    """

    family: Family = field(default_factory=MemoryFamily)
    budget: Budget = field(default_factory=Budget)
    backbone: str | Path | None = None
    backbone_licence: str = ""
    threads: int = 2


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A fitted family with its graph, and what the graph says of photos."""

    calibrated: Calibrated
    graph: bytes
    golden: Golden
    golden_names: list[str]
    anomalous_scores: NDArray[np.float32]


def fit_model(
    images: Sequence[LabelledImage],
    *,
    project: str,
    version: str,
    out_dir: Path,
    options: FitOptions = DEFAULT_OPTIONS,
    progress: Progress | None = None,
    recipe: Recipe | None = None,
) -> FittedModel:
    """Fit a detector and write it to `<out_dir>/<version>`, whole or not at all.

    Args:
        images: normal photos to learn from; anomalous ones only measure the result.
        project: for the manifest.
        version: the folder's name; must not exist in `out_dir`, which is created.
        out_dir: where the folder goes.
        options: promise, budget, families, seed.
        progress: told how far it is.
        recipe: default: the memory family on the backbone that set-up prepared.

    Raises:
        NotEnoughImages: fewer than 2 different readable normal photos.
        BadRequest: the promise makes no sense, or the version exists.
        MissingPart: no backbone.
    """
    started_monotonic_s = time.monotonic()
    _check_request(options.max_false_reject_ratio, out_dir / version)
    check_tiles(options.tiles)
    recipe = recipe or Recipe()
    tell = progress or (lambda _stage, _done_ratio: None)
    backbone = open_backbone(recipe.backbone, licence=recipe.backbone_licence, seed=options.seed)
    normals, anomalies = _read(images, tell, tiled_px(backbone.input_px, options.tiles))
    extractor = FeatureExtractor(calibrated(backbone, normals), tiles=options.tiles, threads=recipe.threads)
    candidate = _fit_candidate(recipe, extractor, normals, anomalies, options, tell)
    skipped = (*normals.skipped, *anomalies.skipped)
    fit_s = time.monotonic() - started_monotonic_s
    manifest = Manifest(
        project=project,
        version=version,
        created_at=datetime.now(UTC),
        family=recipe.family.name,
        inputs=inputs_of(candidate.calibrated.scorer.input_px),
        outputs=outputs_of(candidate.calibrated.scorer.input_px),
        calibration=candidate.calibrated.calibration,
        backbone=extractor.backbone.identity,
        data_digest=normals.digest,
        train_images=len(normals),
        files={},
        metrics={"fit_s": round(fit_s, 3), **_metrics(candidate)},
        tiles=options.tiles,
        warnings=(*backbone.warnings, *candidate.calibrated.warnings, *_warnings_of(skipped)),
        seed=options.seed,
    )
    folder, manifest = _write(out_dir, manifest, candidate, skipped)
    tell("write", 1.0)
    logger.info("fitted %s version %s from %d photos in %.1f s", project, version, len(normals), fit_s)
    return FittedModel(folder, manifest, skipped)


def check_normals(count: int, skipped: Sequence[SkippedImage] = ()) -> None:
    """Refuse what is too little to learn from.

    Args:
        count: different readable photos of good parts.
        skipped: those that were left out, for the sentence.

    Raises:
        NotEnoughImages: fewer than 2.
    """
    if count >= MIN_NORMALS:
        return
    left_out = "".join(f" {one.name}: {one.reason}" for one in skipped[:3])
    message = (
        f"A detector needs at least {MIN_NORMALS} different photos of good parts, better 30 or "
        f"more; there are {count}.{left_out}"
    )
    raise NotEnoughImages(message, normal_images=count, skipped=len(skipped))


def _check_request(max_false_reject_ratio: float, folder: Path) -> None:
    """Refuse before any work what would be refused after it."""
    if not 0 < max_false_reject_ratio <= 0.5:
        message = f"A promise of {max_false_reject_ratio} false rejects makes no sense; give 0.001 to 0.5."
        raise BadRequest(message, max_false_reject_ratio=max_false_reject_ratio)
    if folder.exists():
        raise version_exists(folder)


def _read(images: Sequence[LabelledImage], tell: Progress, input_px: int) -> tuple[Dataset, Dataset]:
    """Return normal and anomalous photos, or say what is missing."""
    wanted = [one for one in images if one.label is Verdict.NORMAL]
    normals = Dataset(wanted, partial(tell, "read"), input_px=input_px)
    check_normals(len(normals), normals.skipped)
    anomalous = [one for one in images if one.label is Verdict.ANOMALY]
    return normals, Dataset(anomalous, input_px=input_px)


def _fit_candidate(
    recipe: Recipe,
    extractor: FeatureExtractor,
    normals: Dataset,
    anomalies: Dataset,
    options: FitOptions,
    tell: Progress,
) -> _Candidate:
    """Fit the family's heads, calibrate them, draw the graph and prove it."""
    groups = normals.groups()
    data = FitData(normals, groups, anomalies, extractor)
    heads = recipe.family.fit(data, recipe.budget, options.seed, partial(tell, "learn")).heads
    told = partial(tell, "calibrate")
    calibrated = calibrate(heads, normals, extractor, groups, options.max_false_reject_ratio, told)
    graph = fuse(extractor, heads, calibrated.scorer)
    session = GraphSession(graph, threads=recipe.threads)
    golden, names = _golden(session, normals, anomalies)
    _prove_graph(heads, calibrated, extractor, golden)
    return _Candidate(calibrated, graph, golden, names, _scores(session, anomalies))


def _golden(session: GraphSession, normals: Dataset, anomalies: Dataset) -> tuple[Golden, list[str]]:
    """Return a few photos with the graph's outputs, and their names."""
    normal_at = np.unique(np.linspace(0, len(normals) - 1, _GOLDEN_NORMALS).astype(int)).tolist()
    anomaly_at = range(min(len(anomalies), _GOLDEN_ANOMALIES))
    inputs = np.stack(
        [*(normals.pixels(index) for index in normal_at), *(anomalies.pixels(index) for index in anomaly_at)]
    )
    names = [normals.images[index].name for index in normal_at]
    names += [anomalies.images[index].name for index in anomaly_at]
    return Golden(inputs, session.infer(inputs)), names


def _prove_graph(
    heads: Sequence[Head], calibrated: Calibrated, extractor: FeatureExtractor, golden: Golden
) -> None:
    """Compare the graph with the trainer's own numbers on the golden photos.

    Raises:
        CorruptModel: they disagree; such a model is not written.
    """
    features = extractor.extract(golden.inputs)
    expected = calibrated.scorer.scores([head.distances(features) for head in heads])
    gap = float(np.max(np.abs(expected - golden.outputs.scores) / np.maximum(np.abs(expected), 1)))
    if not gap <= _GRAPH_TOLERANCE:  # NaN fails, too
        message = f"The graph's scores differ from the trainer's by {gap:.2g}; the model was not written."
        raise CorruptModel(message, gap=gap)


def _scores(session: GraphSession, dataset: Dataset) -> NDArray[np.float32]:
    """Return (n,) scores of all photos."""
    parts = [session.infer(pixels).scores for _, pixels in dataset.batches()]
    return np.concatenate([np.zeros(0, np.float32), *parts])


def _metrics(candidate: _Candidate) -> dict[str, float]:
    """Return what was measured; anomalies are compared with cross-fitted normal scores."""
    threshold = candidate.calibrated.calibration.threshold
    normal, anomalous = candidate.calibrated.normal_scores, candidate.anomalous_scores
    metrics = {"cross_fitted_false_reject_ratio": share_from(normal, threshold)}
    if len(anomalous):
        metrics["image_auroc"] = image_auroc(normal, anomalous)
        metrics["recall_ratio"] = share_from(anomalous, threshold)
    return metrics


def _write(
    out_dir: Path, manifest: Manifest, candidate: _Candidate, skipped: Sequence[SkippedImage]
) -> tuple[Path, Manifest]:
    """Write the model folder with its card."""
    card = render_card(
        manifest,
        normal_scores=candidate.calibrated.normal_scores,
        anomalous_scores=candidate.anomalous_scores,
        golden=candidate.golden,
        golden_names=candidate.golden_names,
        skipped=skipped,
    )
    return write_folder(out_dir, manifest, model=candidate.graph, golden=candidate.golden, card=card)


def _warnings_of(skipped: Sequence[SkippedImage]) -> tuple[str, ...]:
    if not skipped:
        return ()
    return (f"{len(skipped)} photos were left out; the first: {skipped[0].name}: {skipped[0].reason}",)
