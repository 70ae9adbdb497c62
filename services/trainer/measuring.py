"""What a chosen model is worth, for its manifest and its card (arrow 6).

On test photos where the user has set some aside; else on labelled photos, each judged by a model that does
not know it. Nothing is chosen by these numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from services.domain.label import Verdict
from services.domain.model_version import Manifest
from services.trainer.card.pictures import Shown
from services.trainer.choice import Choice
from services.trainer.dataset import Dataset, LabelledImage
from services.trainer.evaluating import MAP_PX, Photo, Record
from services.trainer.evaluation.report import Evaluation
from services.trainer.families.protocol import FitData
from services.vision.masks import on_grid
from services.vision.outputs import ImageOutputs
from services.vision.runtime import GraphSession

# Pictures that wait for the card, of each truth; it shows the most telling ones.
_MOST_SHOWN = 60

_Judged = tuple[LabelledImage, NDArray[np.uint8], dict[str, NDArray[np.bool_]], ImageOutputs]


@dataclass(frozen=True, slots=True)
class Measured:
    """What the card and the manifest say of a model.

    Attributes:
        evaluation: None where nothing was labelled but good parts.
        measured_on: a sentence that says on which photos.
        shown: photos with what came out.
    """

    evaluation: Evaluation | None
    measured_on: str
    shown: tuple[Shown, ...]


def measure(
    choice: Choice, data: FitData, tests: Dataset, manifest: Manifest, session: GraphSession
) -> Measured:
    """Judge the photos that nothing was learnt from.

    Args:
        choice: the model.
        data: what it learnt from.
        tests: photos set aside; may be empty.
        manifest: with calibration and types.
        session: the model's graph.
    """
    if len(tests):
        judged, images = _tested(tests, session), tests.images
        measured_on = f"Measured on {len(tests)} test photos, of which nothing was learnt."
    else:
        judged = _cross_fitted(choice, data)
        images = (*data.normals.images, *data.anomalies.images)
        measured_on = (
            f"No photos were set aside for a test: each of {len(images)} training photos is judged by "
            "what the others taught."
        )
    record = Record(images, manifest)
    shown: dict[Verdict, list[Shown]] = {verdict: [] for verdict in Verdict}
    for image, pixels, masks, said in judged:
        record.add(Photo(image, pixels, {name: on_grid(mask, MAP_PX) for name, mask in masks.items()}), said)
        if len(shown[image.label]) < _MOST_SHOWN:
            shown[image.label].append(_shown(image, pixels, masks, said, manifest))
    has_anomalies = any(one.label is Verdict.ANOMALY for one in images)
    evaluation = record.judged(()).evaluation() if has_anomalies else None
    return Measured(evaluation, measured_on, tuple(one for some in shown.values() for one in some))


def _tested(tests: Dataset, session: GraphSession) -> Iterator[_Judged]:
    for start, pixels in tests.batches():
        for offset, said in enumerate(session.infer(pixels)):
            index = start + offset
            yield tests.images[index], pixels[offset], tests.masks(index), said


def _cross_fitted(choice: Choice, data: FitData) -> Iterator[_Judged]:
    """Yield good photos with the scores that the threshold was read from, then anomalous ones."""
    scorer, evidence = choice.calibrated.scorer, choice.evidence
    groups = np.searchsorted(np.unique(evidence.groups), evidence.groups)
    scores = choice.calibrated.normal_scores[groups]
    yield from _judged(choice, data, data.normals, scores, scorer.maps(evidence.normals), data.groups)
    if len(data.anomalies):
        scores, maps = scorer.scores(evidence.anomalies), scorer.maps(evidence.anomalies)
        yield from _judged(choice, data, data.anomalies, scores, maps, data.anomaly_groups)


def _judged(
    choice: Choice,
    data: FitData,
    photos: Dataset,
    scores: NDArray[np.float32],
    maps: NDArray[np.float32],
    groups: NDArray[np.int32],
) -> Iterator[_Judged]:
    head = choice.type_head
    for start, pixels in photos.batches():
        stop = start + len(pixels)
        types: Sequence[NDArray[np.float32] | None] = [None] * len(pixels)
        if head is not None:
            types = list(head.probabilities(data.extractor.extract(pixels), groups[start:stop].tolist()))
        for index in range(start, stop):
            said = ImageOutputs(float(scores[index]), maps[index], types[index - start])
            yield photos.images[index], pixels[index - start], photos.masks(index), said


def _shown(
    image: LabelledImage,
    pixels: NDArray[np.uint8],
    masks: dict[str, NDArray[np.bool_]],
    said: ImageOutputs,
    manifest: Manifest,
) -> Shown:
    return Shown(
        name=image.name,
        pixels=pixels,
        anomaly_map=said.anomaly_map,
        score=said.score,
        truth=image.label,
        is_anomalous=said.score >= manifest.calibration.threshold,
        mask=np.any(list(masks.values()), axis=0) if masks else None,
    )


def with_metrics(manifest: Manifest, measured: Measured) -> Manifest:
    """Return the manifest with what was measured."""
    if measured.evaluation is None:
        return manifest
    return replace(
        manifest,
        metrics={**manifest.metrics, **measured.evaluation.metrics},
        intervals=measured.evaluation.intervals,
    )
