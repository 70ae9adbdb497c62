"""Restoring networks: the graph computes what torch learnt, and photos are measured by others' networks."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from services.trainer.dataset import Dataset
from services.trainer.families.protocol import Budget, Candidate, FitData
from services.trainer.families.restoration.family import RestorationFamily, RestorationHead
from services.trainer.families.restoration.network import DISTANCE
from services.trainer.families.restoration.profiles import Profile
from services.trainer.families.restoration.training import _Net
from services.trainer.features import FeatureExtractor
from services.trainer.graph_builder import GraphBuilder
from services.trainer.tiling import PIXELS, draw_backbone
from services.vision.runtime import open_session
from tests.unit.trainer.pictures import pictures

TINY = Profile((4, 8), fold_steps=2, final_steps=3, batch_photos=2, learning_rate=1e-3)
BUDGET = Budget(threads=1)


def _ignore(_done_ratio: float) -> None:
    """Take progress."""


@pytest.fixture(scope="module")
def data(extractor: FeatureExtractor) -> FitData:
    """Ten plates; the first three show one object."""
    normals = Dataset(pictures(10))
    groups = np.array([0, 0, 0, *range(1, 8)], np.int32)
    return FitData(normals, groups, Dataset([]), extractor)


@pytest.fixture(scope="module")
def candidate(data: FitData) -> Candidate:
    return RestorationFamily(TINY).fit(data, BUDGET, 0, _ignore)


@pytest.fixture(scope="module")
def head(candidate: Candidate) -> RestorationHead:
    found = candidate.heads[0]
    assert isinstance(found, RestorationHead)
    return found


def _batch(data: FitData, *indices: int) -> NDArray[np.uint8]:
    return np.stack([data.normals.pixels(index) for index in indices])


@pytest.mark.parametrize("side", [32, 48, 224])
def test_graph_computes_what_torch_learns(side: int) -> None:
    """Batch norm that is folded, sums in another order: 1e-4 of 255 levels."""
    torch.manual_seed(0)
    net = _Net((4, 8, 12))
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            torch.nn.init.normal_(module.weight)
            torch.nn.init.normal_(module.bias)
    pixels = np.random.default_rng(0).integers(0, 256, (2, side, side, 3), np.uint8)
    picture = torch.from_numpy(pixels.astype(np.float32) / 255 - 0.5).permute(0, 3, 1, 2)
    with torch.no_grad():
        difference = (picture - net.eval()(picture)) * 255
        fine = torch.nn.functional.avg_pool2d(difference.abs(), 4)
        rough = torch.nn.functional.avg_pool2d(difference, 4).abs()
    expected = ((fine + rough) / 2).mean(dim=1).numpy()
    session = open_session(net.network().model(side).SerializeToString(), 1)
    found = session.run([DISTANCE], {PIXELS: pixels})[0]
    assert found.shape == (2, side // 4, side // 4)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-3)


def test_fused_graph_gives_the_heads_distances(data: FitData, head: RestorationHead) -> None:
    draw, taps = draw_backbone(data.extractor.backbone)
    tensor = head.draw(draw, taps)
    model = draw.finish("test", [(tensor, ["N", head.grid, head.grid])])
    pixels = _batch(data, 0, 5)
    found = open_session(model.SerializeToString(), 1).run([tensor], {PIXELS: pixels})[0]
    np.testing.assert_allclose(found, head.distances({PIXELS: pixels}), rtol=1e-4, atol=1e-4)


def test_photos_are_measured_without_what_they_taught(data: FitData, head: RestorationHead) -> None:
    groups = data.groups.tolist()
    folds = [head.left_out_by[group] for group in groups]
    assert sorted(np.bincount(folds)) == [5, 5]
    assert len({folds[0], folds[1], folds[2]}) == 1, "one object, one half"
    pixels = _batch(data, *range(10))
    crossed = head.distances({PIXELS: pixels}, groups)
    for fold in (0, 1):
        alone = replace(head, final=head.folds[fold], _sessions={}).distances({PIXELS: pixels})
        chosen = np.array(folds) == fold
        np.testing.assert_allclose(crossed[chosen], alone[chosen], rtol=1e-5, atol=1e-5)
        assert not np.allclose(crossed[~chosen], alone[~chosen])


def test_a_fold_learns_nothing_of_its_own_groups(data: FitData, head: RestorationHead) -> None:
    """The network for a group stays the same, whatever its photos show."""
    of_fold = [index for index, group in enumerate(data.groups) if head.left_out_by[int(group)] == 0]
    changed = [
        one if index not in of_fold else pictures(1, first_seed=900 + index)[0]
        for index, one in enumerate(data.normals.images)
    ]
    other = RestorationFamily(TINY).fit(replace(data, normals=Dataset(changed)), BUDGET, 0, _ignore).heads[0]
    assert isinstance(other, RestorationHead)
    assert np.array_equal(other.folds[0].out.kernel, head.folds[0].out.kernel)
    assert not np.array_equal(other.folds[1].out.kernel, head.folds[1].out.kernel)
    assert not np.array_equal(other.final.out.kernel, head.final.out.kernel)


def test_groups_that_taught_nothing_are_measured_by_the_final_network(
    data: FitData, head: RestorationHead
) -> None:
    features = {PIXELS: _batch(data, 3)}
    np.testing.assert_array_equal(head.distances(features, [99]), head.distances(features))


def test_a_seed_fixes_the_networks(data: FitData, head: RestorationHead) -> None:
    before = torch.get_num_threads()
    again = RestorationFamily(TINY).fit(data, BUDGET, 0, _ignore).heads[0]
    other = RestorationFamily(TINY).fit(data, BUDGET, 1, _ignore).heads[0]
    features = {PIXELS: _batch(data, 1)}
    np.testing.assert_array_equal(again.distances(features), head.distances(features))
    assert not np.array_equal(other.distances(features), head.distances(features))
    assert torch.get_num_threads() == before


def test_learning_helps(data: FitData) -> None:
    """A network that saw thirty batches leaves good plates nearer to what they are than one that saw one."""

    def mean_distance(steps: int) -> float:
        profile = replace(TINY, fold_steps=1, final_steps=steps, learning_rate=5e-3)
        fitted = RestorationFamily(profile).fit(data, BUDGET, 0, _ignore).heads[0]
        return float(fitted.distances({PIXELS: _batch(data, 1, 2)}).mean())

    assert mean_distance(30) < 0.7 * mean_distance(1)


def test_progress_rises_to_one(data: FitData) -> None:
    told: list[float] = []
    RestorationFamily(TINY).fit(data, BUDGET, 0, told.append)
    assert told == sorted(told)
    assert told[-1] == pytest.approx(1)


def test_training_ends_when_its_time_is_up(data: FitData, caplog: pytest.LogCaptureFixture) -> None:
    endless = replace(TINY, fold_steps=10**6, final_steps=10**6)
    with caplog.at_level(logging.WARNING):
        RestorationFamily(endless).fit(data, replace(BUDGET, train_s=0.6), 0, _ignore)
    assert caplog.text.count("ended early") == 3


def test_larger_pictures_are_measured_whole(head: RestorationHead) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (1, 416, 416, 3), np.uint8)
    tiled = replace(head, grid=104, _sessions={})
    found = tiled.distances({PIXELS: pixels})
    assert found.shape == (1, 104, 104)
    assert np.isfinite(found).all()


def test_says_why_it_cannot_learn(data: FitData) -> None:
    family = RestorationFamily(TINY)
    assert family.why_not(data) is None
    assert family.is_slow
    few = replace(data, normals=Dataset(pictures(9)), groups=np.arange(9, dtype=np.int32))
    assert "there are 9" in str(family.why_not(few))
    assert "one object" in str(family.why_not(replace(data, groups=np.zeros(10, np.int32))))


def test_draws_without_a_backbone(head: RestorationHead) -> None:
    draw = GraphBuilder()
    pixels = draw.input(PIXELS, 2, ["N", 224, 224, 3])
    model = draw.finish("alone", [(head.draw(draw, {PIXELS: pixels}), ["N", 56, 56])])
    assert model.graph.input[0].name == PIXELS
