"""The supervised family: named types, cross-fitting, few and missing masks, and the drawn graph."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from services.domain.label import Verdict
from services.trainer.dataset import Dataset, LabelledImage
from services.trainer.evaluation.image import image_auroc
from services.trainer.families.protocol import Budget, Candidate, FitData
from services.trainer.families.supervised import AnyAnomalyHead, SupervisedFamily, SupervisedTypes, types_of
from services.trainer.features import FeatureExtractor, Features
from services.trainer.tiling import draw_backbone
from services.vision.masks import on_grid
from services.vision.runtime import open_session
from tests.unit.trainer.pictures import picture, pictures


def anomaly(kind: str, seed: int, *, is_masked: bool = True) -> LabelledImage:
    """Return a plate with a light scratch or a dark stain at a place of its own."""
    rng = np.random.default_rng(1000 + seed)
    image, mask = Image.open(BytesIO(picture(seed))), Image.new("L", (160, 160))
    x, y = (int(value) for value in rng.integers(30, 100, 2))
    for pen, colour in ((ImageDraw.Draw(image), None), (ImageDraw.Draw(mask), 255)):
        if kind == "scratch":
            pen.line((x, y, x + 30, y + 14), fill=colour or (235, 230, 225), width=6)
        else:
            pen.ellipse((x, y, x + 24, y + 18), fill=colour or (90, 60, 40))
    drawn, masked = BytesIO(), BytesIO()
    image.save(drawn, "PNG")
    mask.save(masked, "PNG")
    masks = {kind: masked.getvalue()} if is_masked else {}
    name = f"{kind}-{seed}-{is_masked}.png"
    return LabelledImage(drawn.getvalue(), name, Verdict.ANOMALY, types=(kind,), masks=masks)


def data_of(extractor: FeatureExtractor, anomalies: list[LabelledImage], normals: int = 12) -> FitData:
    good = Dataset(pictures(normals))
    return FitData(good, np.arange(normals, dtype=np.int32), Dataset(anomalies), extractor)


def fit(data: FitData, seed: int = 0) -> Candidate:
    return SupervisedFamily().fit(data, Budget(), seed, lambda _done: None)


def features_of(data: FitData, dataset: Dataset) -> Features:
    return data.extractor.extract(np.stack([dataset.pixels(index) for index in range(len(dataset))]))


@pytest.fixture(scope="module")
def data(extractor: FeatureExtractor) -> FitData:
    return data_of(
        extractor, [anomaly(kind, seed) for seed in range(50, 57) for kind in ("scratch", "stain")]
    )


@pytest.fixture(scope="module")
def candidate(data: FitData) -> Candidate:
    return fit(data)


def types_in(candidate: Candidate) -> SupervisedTypes:
    assert isinstance(candidate.type_head, SupervisedTypes)
    return candidate.type_head


def head_of(candidate: Candidate) -> AnyAnomalyHead:
    (head,) = candidate.heads
    assert isinstance(head, AnyAnomalyHead)
    return head


def test_unseen_photos_show_each_type_where_it_is(data: FitData, candidate: Candidate) -> None:
    head = types_in(candidate)
    assert head.types == ("scratch", "stain")
    planes = head.probabilities(features_of(data, data.anomalies), data.anomaly_groups.tolist())
    assert planes.shape == (14, 2, 56, 56)
    assert 0 <= planes.min() <= planes.max() <= 1
    overlaps = []
    for index, image in enumerate(data.anomalies.images):
        place = head.types.index(image.types[0])
        mask = on_grid(data.anomalies.masks(index)[image.types[0]], 56)
        found = planes[index] >= 0.5
        overlaps.append((found[place] & mask).sum() / (found[place] | mask).sum())
        assert found[place].any()
    assert np.mean(overlaps) > 0.5
    normal = head.probabilities(features_of(data, data.normals), data.groups.tolist())
    assert (normal >= 0.5).any(axis=(1, 2, 3)).mean() < 0.2


def test_any_anomaly_tells_photos_apart(data: FitData, candidate: Candidate) -> None:
    head = head_of(candidate)
    good = head.distances(features_of(data, data.normals), data.groups.tolist())
    bad = head.distances(features_of(data, data.anomalies), data.anomaly_groups.tolist())
    assert good.shape == (12, 56, 56)
    assert good.min() >= 0
    assert image_auroc(good.max(axis=(1, 2)), bad.max(axis=(1, 2))) > 0.95


def test_no_photo_is_measured_by_a_network_that_saw_it(extractor: FeatureExtractor) -> None:
    anomalies = [anomaly("stain", seed) for seed in range(50, 56)]
    before = data_of(extractor, anomalies)
    # Another mask for one photo changes the networks that saw it, and not the one that did not.
    wrong = anomaly("scratch", 50)
    drawn = {"stain": wrong.masks["scratch"]}
    relabelled = LabelledImage(anomalies[0].source, anomalies[0].name, Verdict.ANOMALY, ("stain",), drawn)
    after = data_of(extractor, [relabelled, *anomalies[1:]])
    first, second = fit(before), fit(after)
    one = {name: value[:1] for name, value in features_of(before, before.anomalies).items()}
    group = [int(before.anomaly_groups[0])]
    for head, again in (
        (head_of(first).distances, head_of(second).distances),
        (types_in(first).probabilities, types_in(second).probabilities),
    ):
        np.testing.assert_array_equal(head(one, group), again(one, group))
        assert not np.allclose(head(one), again(one), atol=1e-2)


def test_twins_are_left_out_together(extractor: FeatureExtractor) -> None:
    anomalies = [anomaly("stain", seed) for seed in range(50, 58)]
    pixels = Dataset(anomalies).pixels(2).astype(int)
    again = np.clip(pixels + np.random.default_rng(0).integers(-1, 2, pixels.shape), 0, 255).astype(np.uint8)
    twin = LabelledImage(
        b"P6 224 224 255\n" + again.tobytes(), "twin", Verdict.ANOMALY, ("stain",), {"stain": _empty_speck()}
    )
    data = data_of(extractor, [*anomalies, twin])
    assert data.anomalies.groups()[8] == data.anomalies.groups()[2]
    fold_of = head_of(fit(data)).learnt.fold_of
    assert fold_of[int(data.anomaly_groups[8])] == fold_of[int(data.anomaly_groups[2])]
    assert len(set(fold_of.values())) == 5


def _empty_speck() -> bytes:
    mask = Image.new("L", (224, 224))
    mask.paste(255, (100, 100, 108, 108))
    file = BytesIO()
    mask.save(file, "PNG")
    return file.getvalue()


def test_one_seed_gives_one_model(data: FitData, candidate: Candidate) -> None:
    again = head_of(fit(data)).learnt.whole
    np.testing.assert_array_equal(again.inner, head_of(candidate).learnt.whole.inner)


def test_types_with_few_masks_only_count_as_anomalies(extractor: FeatureExtractor) -> None:
    anomalies = [anomaly("stain", seed) for seed in range(50, 54)]
    data = data_of(extractor, [*anomalies, *(anomaly("scratch", seed) for seed in range(50, 53))])
    assert types_of(data) == ("stain",)
    assert SupervisedFamily().why_not(data) is None
    assert types_in(fit(data)).types == ("stain",)


def test_too_few_photos_are_refused_with_numbers(extractor: FeatureExtractor) -> None:
    masked = [anomaly("stain", seed) for seed in range(50, 53)]
    unmasked = [anomaly("stain", seed, is_masked=False) for seed in range(60, 70)]
    for anomalies in ([], masked, [*masked, *unmasked], unmasked[:3]):
        reason = SupervisedFamily().why_not(data_of(extractor, anomalies))
        assert reason is not None
        assert f"there are {len(anomalies)}," in reason
    assert SupervisedFamily().why_not(data_of(extractor, unmasked)) is None
    of_one_part = FitData(Dataset(pictures(2)), np.zeros(2, np.int32), Dataset(unmasked), extractor)
    assert "good photos of two parts" in (SupervisedFamily().why_not(of_one_part) or "")


def test_verdicts_alone_teach_an_image_score_and_no_types(extractor: FeatureExtractor) -> None:
    data = data_of(extractor, [anomaly("scratch", seed, is_masked=False) for seed in range(50, 60)])
    candidate = fit(data)
    assert candidate.type_head is None
    head = head_of(candidate)
    assert head.grid == 28
    good = head.distances(features_of(data, data.normals), data.groups.tolist())
    bad = head.distances(features_of(data, data.anomalies), data.anomaly_groups.tolist())
    assert image_auroc(good.max(axis=(1, 2)), bad.max(axis=(1, 2))) > 0.9


@pytest.mark.parametrize("is_masked", [True, False])
def test_the_drawn_graph_gives_the_same_numbers(
    extractor: FeatureExtractor, candidate: Candidate, data: FitData, *, is_masked: bool
) -> None:
    if not is_masked:
        data = data_of(extractor, [anomaly("stain", seed, is_masked=False) for seed in range(50, 55)])
        candidate = fit(data)
    draw, taps = draw_backbone(extractor.backbone, extractor.tiles)
    head, types = head_of(candidate), candidate.type_head
    outputs: list[tuple[str, Sequence[int | str]]] = [
        (draw.add("Identity", head.draw(draw, taps), name="any"), ["N", head.grid, head.grid])
    ]
    if types is not None:
        outputs.append((draw.add("Identity", types.draw(draw, taps), name="types"), ["N", 2, 56, 56]))
    graph = draw.finish("test", outputs).SerializeToString()
    backbone, _ = draw_backbone(extractor.backbone, extractor.tiles)
    shapes: list[tuple[str, Sequence[int | str]]] = [
        (tap.name, ["N", tap.channels, tap.grid, tap.grid]) for tap in extractor.taps.values()
    ]
    assert len(graph) - len(backbone.finish("b", shapes).SerializeToString()) < 1_000_000
    pixels = np.stack([data.anomalies.pixels(index) for index in range(5)])
    found: list[NDArray[np.float32]] = open_session(graph, 1).run(None, {"pixels": pixels})
    features = extractor.extract(pixels)
    np.testing.assert_allclose(found[0], head.distances(features), atol=1e-4 * _SCALE)
    if types is not None:
        np.testing.assert_allclose(found[1], types.probabilities(features), atol=1e-4)


# Distances go up to some 20; 1e-4 of that.
_SCALE = 20
