"""Golden photos of a new graph, and the proof that it computes what the trainer does (arrow 6)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from services.domain.errors import CorruptModel
from services.trainer.choice import Choice
from services.trainer.dataset import Dataset
from services.trainer.features import FeatureExtractor
from services.vision.golden import Golden
from services.vision.outputs import EMBEDDING, MAP, SCORE, TYPES, GraphOutputs
from services.vision.runtime import GraphSession

_GOLDEN_NORMALS, _GOLDEN_ANOMALIES = 3, 2
# fp32 sums in another order: usually 1e-5 of a number; of a map more where photos are nearly equal, because
# it divides by what they differ.
_TOLERANCES = {SCORE: 1e-3, MAP: 5e-2, TYPES: 1e-3, EMBEDDING: 1e-3}


def golden_of(session: GraphSession, normals: Dataset, anomalies: Dataset) -> Golden:
    """Return a few photos with the graph's outputs."""
    normal_at = np.unique(np.linspace(0, len(normals) - 1, _GOLDEN_NORMALS).astype(int)).tolist()
    anomaly_at = range(min(len(anomalies), _GOLDEN_ANOMALIES))
    inputs = np.stack(
        [*(normals.pixels(index) for index in normal_at), *(anomalies.pixels(index) for index in anomaly_at)]
    )
    return Golden(inputs, session.infer(inputs))


def expected_outputs(choice: Choice, extractor: FeatureExtractor, pixels: NDArray[np.uint8]) -> GraphOutputs:
    """Return what the trainer itself computes for (N, S, S, 3) pixels."""
    features = extractor.extract(pixels)
    distances = [head.distances(features) for head in choice.heads]
    scorer = choice.calibrated.scorer
    return GraphOutputs(
        scores=scorer.scores(distances),
        maps=scorer.maps(distances),
        types=None if choice.type_head is None else choice.type_head.probabilities(features),
        embeddings=choice.embedding.distances(features),
    )


def prove_graph(choice: Choice, extractor: FeatureExtractor, golden: Golden) -> None:
    """Compare the graph with the trainer's own numbers on the golden photos.

    Raises:
        CorruptModel: they disagree; such a model is not written.
    """
    expected = expected_outputs(choice, extractor, golden.inputs).by_name
    found = golden.outputs.by_name
    for name, wanted in expected.items():
        gap = float(np.max(np.abs(wanted - found[name]) / np.maximum(np.abs(wanted), 1)))
        if not gap <= _TOLERANCES[name]:  # NaN fails, too
            message = (
                f"The graph's {name} differs from the trainer's by {gap:.2g}; the model was not written."
            )
            raise CorruptModel(message, output=name, gap=gap)
