"""Photos -> a model folder: the whole recipe in one call (arrow 6).

Read, fit every family, measure by cross-fitting, choose, calibrate, fuse into one graph, prove that the
graph gives the trainer's numbers, write the folder. No torch unless a family asks for it, no network, and
memory that does not grow with the number of photos. Does not upload or announce
(`services.trainer.registry`).
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

from services.domain.errors import NotEnoughImages
from services.domain.label import Split, Verdict
from services.domain.model_version import DEFAULT_OPTIONS, AnomalyType, FitOptions, Manifest, check_promise
from services.trainer.backbones.opening import calibrated, open_backbone
from services.trainer.card.rendering import CardFacts, render_card
from services.trainer.choice import Choice, choose, families_for
from services.trainer.dataset import Dataset, LabelledImage, SkippedImage
from services.trainer.evaluation.image import share_from
from services.trainer.evidence import gather
from services.trainer.families import all_families
from services.trainer.families.protocol import Budget, Candidate, Family, FitData
from services.trainer.features import FeatureExtractor
from services.trainer.graph import inputs_of, outputs_of
from services.trainer.measuring import Measured, measure, with_metrics
from services.trainer.model_folder import version_exists, write_folder
from services.trainer.named_types import named_types
from services.trainer.precision import Precisions, faster_variants, photos_to_judge
from services.trainer.proof import golden_of, prove_graph
from services.trainer.reference import reference_of
from services.trainer.splits import with_split
from services.trainer.tiling import check_tiles, tiled_px
from services.vision.golden import Golden
from services.vision.runtime import GraphSession

logger = logging.getLogger(__name__)

MIN_NORMALS = 2
# More normal photos than these are drawn from by chance: thresholds for promises down to 0.1 % are read
# from so many, and a fit's time and memory stay bounded.
MOST_NORMALS = 1000

# Called with the stage (`read`, `learn`, `calibrate`, `write`) and the share of it done (0-1).
Progress = Callable[[str, float], None]


@dataclass(frozen=True, slots=True)
class FittedModel:
    """What a fit left on disk.

    Attributes:
        folder: the model folder, complete.
        manifest: as written in it.
        skipped: photos that were left out, with reasons.
        near_duplicates: sentences about photos that show nearly the same, also across training and test.
        measured_on: a sentence that says on which photos its metrics were measured.
    """

    folder: Path
    manifest: Manifest
    skipped: tuple[SkippedImage, ...]
    near_duplicates: tuple[str, ...] = ()
    measured_on: str = ""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to fit, apart from the photos.

    Attributes:
        families: those to choose from.
        budget: what they may cost.
        backbone: see `services.trainer.backbones.opening.open_backbone`.
        backbone_licence: of its weights, where the file does not say.
        threads: CPU threads.
    """

    families: Sequence[Family] = field(default_factory=all_families)
    budget: Budget = field(default_factory=Budget)
    backbone: str | Path | None = None
    backbone_licence: str = ""
    threads: int = 2


@dataclass(frozen=True, slots=True)
class _Learnt:
    """What was chosen, with a proved graph and its faster precisions."""

    choice: Choice
    types: tuple[AnomalyType, ...]
    session: GraphSession
    golden: Golden
    precisions: Precisions
    warnings: tuple[str, ...]


def fit_model(
    images: Sequence[LabelledImage],
    *,
    project: str,
    version: str,
    out_dir: Path,
    options: FitOptions = DEFAULT_OPTIONS,
    progress: Progress | None = None,
    recipe: Recipe | None = None,
    data_digest: str = "",
    notes: Sequence[str] = (),
) -> FittedModel:
    """Fit a detector and write it to `<out_dir>/<version>`, whole or not at all.

    Args:
        images: normal photos to learn from and labelled anomalies, of which families learn and among
            which the choice is made; those whose split is `test` only measure the result.
        project: for the manifest.
        version: the folder's name; must not exist in `out_dir`, which is created.
        out_dir: where the folder goes.
        options: promise, budget, families, seed.
        progress: told how far it is.
        recipe: default: every family, on the backbone that set-up prepared.
        data_digest: of the dataset version that the images are; default: of the photos themselves.
        notes: warnings about the data, known before it was read.

    Raises:
        NotEnoughImages: fewer than 2 different readable normal photos, or too few for the family asked for.
        BadRequest: the promise or a family's name makes no sense, or the version exists.
        CorruptModel: the backbone gives numbers that are not finite; nothing was written.
        MissingPart: no backbone.
    """
    started_monotonic_s = time.monotonic()
    _check_request(options.max_false_reject_ratio, out_dir / version)
    check_tiles(options.tiles)
    recipe = recipe or Recipe()
    tell = progress or (lambda _stage, _done_ratio: None)
    backbone = open_backbone(recipe.backbone, licence=recipe.backbone_licence, seed=options.seed)
    photos = _read(images, options, tell, tiled_px(backbone.input_px, options.tiles))
    near_duplicates = _near_duplicates(photos)
    normals, anomalies = _training(photos, options.seed)
    extractor = FeatureExtractor(calibrated(backbone, normals), tiles=options.tiles, threads=recipe.threads)
    data = FitData(normals, normals.groups(), anomalies, extractor)
    learnt = _learn(recipe, data, options, tell)
    tests = photos.where(lambda one: not _teaches(one))
    fit_s = time.monotonic() - started_monotonic_s
    choice, precisions = learnt.choice, learnt.precisions
    manifest = Manifest(
        project=project,
        version=version,
        created_at=datetime.now(UTC),
        family="+".join(choice.families),
        inputs=inputs_of(extractor.input_px),
        outputs=outputs_of(extractor.input_px, len(learnt.types)),
        calibration=choice.calibrated.calibration,
        backbone=extractor.backbone.identity,
        data_digest=data_digest or photos.digest,
        train_images=len(normals),
        files={},
        metrics=_metrics(choice, precisions, fit_s),
        tiles=options.tiles,
        warnings=(
            *backbone.warnings,
            *learnt.warnings,
            *choice.warnings,
            *choice.calibrated.warnings,
            *_warnings_of(photos.skipped),
            *notes,
            *near_duplicates,
        ),
        seed=options.seed,
        types=learnt.types,
        variants=precisions.variants,
        serving=precisions.serving,
        candidates=choice.reports,
        reference=reference_of(
            normals, choice.calibrated.normal_scores, choice.embedding.of_means(choice.evidence.means)
        ),
    )
    measured = measure(choice, data, tests, manifest, learnt.session)
    folder, manifest = _write(out_dir, with_metrics(manifest, measured), learnt, measured, photos.skipped)
    tell("write", 1.0)
    logger.info("fitted %s version %s from %d photos in %.1f s", project, version, len(normals), fit_s)
    return FittedModel(folder, manifest, photos.skipped, near_duplicates, measured.measured_on)


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
        f"more; there {'is' if count == 1 else 'are'} {count}.{left_out}"
    )
    raise NotEnoughImages(message, normal_images=count, skipped=len(skipped))


def _check_request(max_false_reject_ratio: float, folder: Path) -> None:
    """Refuse before any work what would be refused after it."""
    check_promise(max_false_reject_ratio)
    if folder.exists():
        raise version_exists(folder)


def _read(images: Sequence[LabelledImage], options: FitOptions, tell: Progress, input_px: int) -> Dataset:
    """Return all photos that have a verdict, each with what it is for."""
    photos = Dataset(images, partial(tell, "read"), input_px=input_px)
    if options.holds_out:
        photos = photos.said_otherwise(with_split(photos.images, photos.groups().tolist(), options.seed))
    count = sum(_teaches(one) and one.label is Verdict.NORMAL for one in photos.images)
    check_normals(count, photos.skipped)
    return photos


def _teaches(image: LabelledImage) -> bool:
    return image.split is not Split.TEST


def _near_duplicates(photos: Dataset) -> tuple[str, ...]:
    training = photos.where(_teaches)
    test = photos.where(lambda one: not _teaches(one))
    return (*training.near_duplicates(), *test.near_duplicates_in(training))


def _training(photos: Dataset, seed: int) -> tuple[Dataset, Dataset]:
    """Return the normal photos, at most `MOST_NORMALS`, and the anomalous ones to learn from."""
    normals = photos.where(lambda one: _teaches(one) and one.label is Verdict.NORMAL)
    if len(normals) > MOST_NORMALS:
        drawn = np.random.default_rng(seed).choice(len(normals), MOST_NORMALS, replace=False).tolist()
        names = {normals.images[index].name for index in drawn}
        normals = normals.where(lambda one: one.name in names)
    return normals, photos.where(lambda one: _teaches(one) and one.label is Verdict.ANOMALY)


def _learn(recipe: Recipe, data: FitData, options: FitOptions, tell: Progress) -> _Learnt:
    """Fit every family, choose, and prove the chosen graph."""
    families, warnings = families_for(options, data, recipe.families)
    candidates = _fitted(families, data, recipe.budget, options.seed, partial(tell, "learn"))
    heads = [head for one in candidates for head in one.heads]
    evidence = gather(heads, data, options.seed, partial(tell, "choose"))
    tell("calibrate", 0.0)
    choice = choose(candidates, evidence, data.extractor, options, recipe.threads)
    session = GraphSession(choice.graph, threads=recipe.threads)
    golden = golden_of(session, data.normals, data.anomalies)
    prove_graph(choice, data.extractor, golden)
    precisions = faster_variants(
        choice.graph,
        photos_to_judge(data.normals, data.anomalies, golden.inputs, options.seed),
        choice.calibrated.calibration.threshold,
        taps=data.extractor.taps,
        threads=recipe.threads,
    )
    tell("calibrate", 1.0)
    return _Learnt(choice, named_types(choice.type_head, data), session, golden, precisions, warnings)


def _fitted(
    families: Sequence[Family],
    data: FitData,
    budget: Budget,
    seed: int,
    tell: Callable[[float], None],
) -> list[Candidate]:
    """Fit one family after the other."""
    candidates = []
    for done, family in enumerate(families):
        candidates.append(family.fit(data, budget, seed, _share_of(tell, done, len(families))))
    return candidates


def _share_of(tell: Callable[[float], None], done: int, total: int) -> Callable[[float], None]:
    return lambda ratio: tell((done + ratio) / total)


def _metrics(choice: Choice, precisions: Precisions, fit_s: float) -> dict[str, float]:
    threshold = choice.calibrated.calibration.threshold
    return {
        **precisions.metrics,
        "fit_s": round(fit_s, 3),
        "graph_ms": precisions.variants[0].ms,
        "file_bytes": float(len(choice.graph)),
        "cross_fitted_false_reject_ratio": share_from(choice.calibrated.normal_scores, threshold),
    }


def _write(
    out_dir: Path,
    manifest: Manifest,
    learnt: _Learnt,
    measured: Measured,
    skipped: Sequence[SkippedImage],
) -> tuple[Path, Manifest]:
    """Write the model folder with its card."""
    calibrated, evidence = learnt.choice.calibrated, learnt.choice.evidence
    facts = CardFacts(
        manifest=manifest,
        evaluation=measured.evaluation,
        measured_on=measured.measured_on,
        normal_scores=calibrated.normal_scores,
        anomalous_scores=calibrated.scorer.scores(evidence.anomalies),
        made_up_scores=calibrated.scorer.scores(evidence.spoilt),
        shown=measured.shown,
        skipped=skipped,
    )
    return write_folder(
        out_dir,
        manifest,
        model=learnt.choice.graph,
        golden=learnt.golden,
        card=render_card(facts),
        variants=learnt.precisions.files,
    )


def _warnings_of(skipped: Sequence[SkippedImage]) -> tuple[str, ...]:
    if not skipped:
        return ()
    # Files: masks without a photo are among them.
    left_out = (
        "1 file was left out" if len(skipped) == 1 else f"{len(skipped)} files were left out; the first"
    )
    return (f"{left_out}: {skipped[0].name}: {skipped[0].reason}",)
