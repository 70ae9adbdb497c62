"""Which families become the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from services.domain.errors import BadRequest, NotEnoughImages
from services.domain.model_version import FitOptions
from services.trainer.choice import Option, best_maps, choose, families_for, preferred, quality_of, reason_of
from services.trainer.evidence import Evidence, gather
from services.trainer.families.aligned import AlignedFamily
from services.trainer.families.memory import MemoryFamily
from services.trainer.families.protocol import Budget, Candidate, FitData, StageProgress
from services.trainer.features import FeatureExtractor
from tests.unit.trainer.pictures import fit_data

KNOWN = (MemoryFamily(), AlignedFamily())
SIDE = 56


class SlowFamily:
    """Stands in for one that trains a network."""

    name = "slow"
    is_slow = True

    def why_not(self, data: FitData) -> str | None:
        return None if len(data.normals) > 3 else "It needs more."

    def fit(self, data: FitData, budget: Budget, seed: int, progress: StageProgress) -> Candidate:
        raise NotImplementedError


def made_up(heads: Sequence[tuple[float, float]], *, anomalies: int = 0) -> Evidence:
    """Return evidence on heads that raise a defect's cells by so much, in sd, and an anomaly's by so much."""
    rng = np.random.default_rng(0)
    masks = np.zeros((20 + anomalies, SIDE, SIDE), np.bool_)
    masks[:, 10:14, 20:26] = True

    def noise(count: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        return rng.normal(10, 1, (count, SIDE, SIDE)).astype(np.float32)

    return Evidence(
        groups=np.arange(24, dtype=np.int32),
        normals=[noise(24) for _ in heads],
        spoilt=[
            noise(20) + np.where(masks[:20], np.float32(synthetic), np.float32(0)) for synthetic, _ in heads
        ],
        spoilt_masks=masks[:20],
        anomalies=[
            noise(anomalies) + np.where(masks[20:], np.float32(labelled), np.float32(0))
            for _, labelled in heads
        ],
        anomaly_masks=masks[20:],
        means=rng.normal(0, 1, (24, 3)).astype(np.float32),
    )


def option(name: str, members: tuple[int, ...], quality: float, ms: float = 5.0) -> Option:
    return Option(name, members, members, quality, ms)


def test_a_tie_goes_to_all_together() -> None:
    together = option("a+b", (0, 1), 0.90)
    assert preferred([option("a", (0,), 0.93), option("b", (1,), 0.6), together]) is together


def test_a_clearly_better_family_stands_alone() -> None:
    alone = option("a", (0,), 0.97)
    assert preferred([alone, option("b", (1,), 0.5), option("a+b", (0, 1), 0.90)]) is alone


@pytest.mark.parametrize(
    ("quality", "beginning"),
    [
        (0.95, "Several ways of seeing find more than one: they rank 0.950 of"),
        (0.87, "None is clearly better"),
    ],
)
def test_what_all_together_are_chosen_for_is_true(quality: float, beginning: str) -> None:
    compared = [option("a", (0,), 0.9), option("b", (1,), 0.8), option("a+b", (0, 1), quality)]
    chosen = preferred(compared)
    assert chosen.name == "a+b"
    assert reason_of(chosen, chosen, compared, FitOptions()).startswith(beginning)


def test_a_blind_head_lowers_the_quality() -> None:
    seeing, blind = quality_of(made_up([(6, 0)]), 224), quality_of(made_up([(0, 0)]), 224)
    assert seeing > 0.95
    assert blind == pytest.approx(0.5, abs=0.2)


def test_labelled_anomalies_weigh_half() -> None:
    evidence = made_up([(0, 8)], anomalies=10)
    without = quality_of(replace(evidence, anomaly_masks=evidence.anomaly_masks[:0]), 224)
    assert quality_of(evidence, 224) == pytest.approx((without + 1) / 2, abs=0.01)


def test_the_map_leaves_out_heads_that_see_nothing() -> None:
    assert best_maps(made_up([(4, 0), (0, 0), (4, 0)])) == (True, False, True)


def test_drawn_anomalies_count_for_the_map() -> None:
    assert best_maps(made_up([(0, 6), (0, 0)], anomalies=20)) == (True, False)


def test_slow_families_wait_until_they_are_asked_for(extractor: FeatureExtractor) -> None:
    data, known = fit_data(6, extractor), (*KNOWN, SlowFamily())
    assert [one.name for one in families_for(FitOptions(), data, known)[0]] == ["memory", "aligned"]
    thorough = families_for(FitOptions(is_thorough=True), data, known)[0]
    assert [one.name for one in thorough] == ["memory", "aligned", "slow"]
    assert [one.name for one in families_for(FitOptions(families=("slow",)), data, known)[0]] == ["slow"]


def test_what_cannot_learn_is_named_if_it_was_asked_for(extractor: FeatureExtractor) -> None:
    data, known = fit_data(3, extractor), (*KNOWN, SlowFamily())
    able, warnings = families_for(FitOptions(families=("memory", "aligned")), data, known)
    assert [one.name for one in able] == ["memory"]
    assert warnings == (
        "The family aligned was left out: It needs photos of at least 6 different good parts; there are 3.",
    )
    assert families_for(FitOptions(), data, known)[1] == ()
    with pytest.raises(NotEnoughImages, match=r"slow was left out: It needs more\."):
        families_for(FitOptions(families=("slow",)), data, known)


def test_an_unknown_family_is_refused(extractor: FeatureExtractor) -> None:
    with pytest.raises(BadRequest, match="no family magic; there are memory, aligned"):
        families_for(FitOptions(families=("magic",)), fit_data(2, extractor), KNOWN)


@pytest.mark.parametrize("budget_ms", [1e-3, 1e6, None])
def test_the_budget_is_kept_or_the_fastest_is_taken(
    extractor: FeatureExtractor, budget_ms: float | None
) -> None:
    data = fit_data(8, extractor)
    candidates = [one.fit(data, Budget(50, 500), 0, lambda _done: None) for one in KNOWN]
    heads = [head for one in candidates for head in one.heads]
    evidence = gather(heads, data, 0, lambda _done: None)
    choice = choose(candidates, evidence, extractor, FitOptions(budget_ms=budget_ms), threads=1)
    assert [one.name for one in choice.reports] == ["memory", "aligned", "memory+aligned"]
    (chosen,) = [one for one in choice.reports if one.is_chosen]
    assert "+".join(choice.families) == chosen.name
    assert all(one.ms > 0 and 0 <= one.quality <= 1 and one.reason.endswith(".") for one in choice.reports)
    if budget_ms == 1e-3:
        assert chosen.ms == min(one.ms for one in choice.reports)
        assert "Nothing fits the budget of 0.001 ms" in choice.warnings[0]
    else:
        assert choice.warnings == ()
