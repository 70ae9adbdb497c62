"""The real tritonserver computes what the trainer does: every family, backbone and precision."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from services.adapters.triton.repository import write_model
from services.adapters.triton.server import TritonServer
from services.domain.label import Verdict
from services.domain.model_version import Calibration, FitOptions
from services.trainer.backbones.opening import calibrated, open_backbone
from services.trainer.choice import choose
from services.trainer.dataset import Dataset, LabelledImage
from services.trainer.evaluation.image import image_auroc
from services.trainer.evidence import gather
from services.trainer.families import all_families
from services.trainer.families.protocol import Budget, FitData
from services.trainer.features import FeatureExtractor
from services.trainer.graph import inputs_of, outputs_of
from services.trainer.precision import in_eight_bits
from services.trainer.proof import expected_outputs
from services.vision.outputs import GraphOutputs
from services.vision.runtime import GraphSession
from services.vision.variants import fp32_of
from tests.photos import PhotoSettings
from tests.servers import TritonAccess
from tests.unit.trainer.pictures import picture, pictures
from tests.unit.vision.manifests import manifest_of

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]

FRESH_SEED = 1000
# Of scores and maps, relative above 1.
TOLERANCE = 1e-4
BACKBONES = sorted((PhotoSettings().inspection_data / "backbones").glob("*.onnx"))
FAMILIES = [one.name for one in all_families()]


@dataclass(frozen=True)
class Case:
    """A model to fit: on which backbone, of which families, on how many tiles."""

    backbone: str | Path | None
    families: tuple[str, ...]
    tiles: int = 1

    def __str__(self) -> str:
        name = self.backbone.stem if isinstance(self.backbone, Path) else self.backbone or "default"
        return f"{name}-{'+'.join(self.families)}-{self.tiles}"


BOTH = ("memory", "aligned")
CASES = [
    *(Case(None, (family,)) for family in FAMILIES),
    Case(None, BOTH),
    Case(None, BOTH, tiles=2),
    Case("random", BOTH),
    *(Case(path, BOTH) for path in BACKBONES),
]


@dataclass(frozen=True)
class Fitted:
    """A fused graph, and who computes the same without it."""

    graph: bytes
    types: int
    extractor: FeatureExtractor
    expected: GraphOutputs
    threshold: float


def scratched(seed: int) -> LabelledImage:
    """Return a picture with a scratch, and the mask of it."""
    good, bad = (np.array(Image.open(io.BytesIO(picture(seed, is_bad=bad)))) for bad in (False, True))
    mask = (good != bad).any(axis=2).astype(np.uint8) * 255
    file = io.BytesIO()
    Image.fromarray(mask).save(file, "PNG")
    return LabelledImage(
        picture(seed, is_bad=True), f"bad-{seed}", Verdict.ANOMALY, masks={"scratch": file.getvalue()}
    )


def fitted(case: Case, pixels_of: NDArray[np.int32]) -> Fitted:
    """Fit a case on small pictures; `expected` are the trainer's own numbers for pictures of those seeds."""
    options = FitOptions(families=case.families, tiles=case.tiles)
    backbone = open_backbone(case.backbone)
    side_px = FeatureExtractor(backbone, tiles=case.tiles).input_px
    normals = Dataset(pictures(16), input_px=side_px)
    anomalies = Dataset([scratched(500 + one) for one in range(6)], input_px=side_px)
    extractor = FeatureExtractor(calibrated(backbone, normals), tiles=case.tiles)
    data = FitData(normals, normals.groups(), anomalies, extractor)
    chosen = [one for one in all_families() if one.name in case.families]
    candidates = [one.fit(data, Budget(300, 3000, train_s=3.0), 0, lambda _done: None) for one in chosen]
    heads = [head for one in candidates for head in one.heads]
    choice = choose(candidates, gather(heads, data, 0, lambda _done: None), extractor, options, 2)
    shown = fresh(pixels_of, side_px)
    types = 0 if choice.type_head is None else len(choice.type_head.types)
    expected = expected_outputs(choice, extractor, shown)
    return Fitted(choice.graph, types, extractor, expected, choice.calibrated.calibration.threshold)


def fresh(seeds: NDArray[np.int32], side_px: int) -> NDArray[np.uint8]:
    """Return (N, S, S, 3) pictures that nothing learnt from; odd seeds have a scratch."""
    images = [LabelledImage(picture(one, is_bad=one % 2 == 1), str(one)) for one in seeds.tolist()]
    dataset = Dataset(images, input_px=side_px)
    return np.stack([dataset.pixels(index) for index in range(len(dataset))])


@dataclass
class Server:
    """A tritonserver that runs any graph."""

    client: TritonServer
    repository: Path
    loaded: list[str]

    def run(self, graph: bytes, found: Fitted, pixels: NDArray[np.uint8], place: Path) -> GraphOutputs:
        """Load a graph as a replica does and have it judge pixels."""
        place.mkdir(exist_ok=True)
        (place / "model.onnx").write_bytes(graph)
        side_px = found.extractor.input_px
        calibration = Calibration(1, 0, 1, 9, 0.02, 1, 1, 1, 2)
        manifest = replace(
            manifest_of(calibration, input_px=side_px),
            inputs=inputs_of(side_px),
            outputs=outputs_of(side_px, found.types),
        )
        name = f"graph-{len(self.loaded)}-{place.name}"
        write_model(self.repository / name, place, manifest, fp32_of(manifest), threads=2)
        self.client.load(name)
        self.loaded.append(name)
        names = [spec.name for spec in manifest.outputs]
        values = self.client.infer(name, input_name="pixels", batch=pixels, outputs=names, timeout_s=60)
        return GraphOutputs.of(dict(zip(names, values, strict=True)))


@pytest.fixture
def server(triton_access: TritonAccess) -> Iterator[Server]:
    made = Server(TritonServer(triton_access.grpc), triton_access.repository, [])
    yield made
    for name in made.loaded:
        made.client.unload(name)
    made.client.close()


@pytest.mark.parametrize("case", CASES, ids=str)
def test_fp32_in_triton_is_what_the_trainer_computes(server: Server, case: Case, tmp_path: Path) -> None:
    seeds = np.arange(FRESH_SEED, FRESH_SEED + 5, dtype=np.int32)
    found = fitted(case, seeds)
    served = server.run(found.graph, found, fresh(seeds, found.extractor.input_px), tmp_path).by_name
    assert set(served) == set(found.expected.by_name)
    for name, expected in found.expected.by_name.items():
        gap = np.abs(served[name] - expected) / np.maximum(np.abs(expected), 1)
        assert gap.max() <= TOLERANCE, name


def test_eight_bits_in_triton_judge_as_fp32_does(server: Server, tmp_path: Path) -> None:
    seeds = np.arange(FRESH_SEED, FRESH_SEED + 100, dtype=np.int32)
    found = fitted(Case(None, BOTH), seeds)
    pixels = fresh(seeds, found.extractor.input_px)
    int8 = in_eight_bits(found.graph, pixels[:16:2], found.extractor.taps)
    assert int8 is not None
    served = server.run(int8, found, pixels, tmp_path)
    # Not what it says in this process: another ONNX Runtime may round otherwise, and golden photos tell.
    here = GraphSession(int8).infer(pixels[:8])
    np.testing.assert_allclose(served.first(8).scores, here.scores, rtol=0.05, atol=0.05)
    fp32 = found.expected.scores
    assert np.mean((served.scores >= found.threshold) == (fp32 >= found.threshold)) >= 0.99
    aurocs = [image_auroc(scores[::2], scores[1::2]) for scores in (fp32, served.scores)]
    assert aurocs[0] - aurocs[1] <= 0.005
