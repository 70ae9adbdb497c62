"""Fitted families -> the one, or those together, that become the model, and why (arrow 6).

Each family alone and all together are judged on what cross-fitted good photos, synthetic defects and
labelled anomalies score; test photos are never looked at. Several ways of seeing are preferred to one
unless one is clearly better, because defects that nobody has shown may look different.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from services.domain.errors import BadRequest, NotEnoughImages
from services.domain.model_version import CandidateReport, FitOptions
from services.trainer.calibration import Calibrated, calibrate, highest_by_group, normal_scores_of
from services.trainer.embedding import Embedding, coarsest_tap, embedding_of
from services.trainer.evaluation.image import image_auroc
from services.trainer.evidence import Evidence
from services.trainer.families.protocol import Candidate, Family, FitData, Head, TypeHead
from services.trainer.features import FeatureExtractor
from services.trainer.graph import fuse
from services.trainer.resizing import resized
from services.trainer.scorer import Distances, places_of, scores_of, standard_of, statistics_of
from services.vision.runtime import GraphSession

# What one family alone has to be better by before it is taken instead of all together: about twice the
# standard error of the difference on 48 synthetic defects.
_CLEARLY_BETTER = 0.06
# A map of more heads is taken where it is no worse than this share of the best.
_AS_GOOD_MAP_RATIO = 0.98
# Fewer labelled anomalies than this say nothing about the rest.
_FEWEST_ANOMALIES = 3
_TIMED_RUNS, _WARM_UP_RUNS = 21, 3
# Good photos whose maps are compared with those of synthetic defects.
_MAP_NORMALS = 24
# One cell in so many of good photos is compared with each defect; no divisor of a grid's side.
_EACH_NORMAL_CELL = 23


@dataclass(frozen=True, slots=True)
class Choice:
    """What becomes the model.

    Attributes:
        families: names of those in it, in order of worth.
        heads: of these families.
        type_head: where one of them learnt named types.
        calibrated: of these heads.
        embedding: see `services.trainer.embedding`.
        evidence: on these heads.
        graph: serialised, fused.
        reports: what was compared; exactly one is chosen.
        warnings: plain sentences.
    """

    families: tuple[str, ...]
    heads: tuple[Head, ...]
    type_head: TypeHead | None
    calibrated: Calibrated
    embedding: Embedding
    evidence: Evidence
    graph: bytes
    reports: tuple[CandidateReport, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Option:
    """One or several families together.

    Attributes:
        members: their places among the candidates.
        heads: their heads' places among all heads.
        quality: chance that a defect scores above a good photo (0-1).
        ms: measured, fp32.
    """

    name: str
    members: tuple[int, ...]
    heads: tuple[int, ...]
    quality: float
    ms: float


def families_for(
    options: FitOptions, data: FitData, known: Sequence[Family]
) -> tuple[tuple[Family, ...], tuple[str, ...]]:
    """Return the families to fit, in order of worth, and warnings about those asked for in vain.

    Raises:
        BadRequest: a family that was asked for does not exist.
        NotEnoughImages: none of those asked for can learn from these photos.
    """
    unknown = [name for name in options.families if name not in {one.name for one in known}]
    if unknown:
        message = f"There is no family {unknown[0]}; there are {', '.join(one.name for one in known)}."
        raise BadRequest(message, family=unknown[0])
    asked = [
        one
        for one in known
        if (one.name in options.families if options.families else options.is_thorough or not one.is_slow)
    ]
    reasons = {one.name: one.why_not(data) for one in asked}
    able = tuple(one for one in asked if reasons[one.name] is None)
    warnings = tuple(
        f"The family {name} was left out: {why}" for name, why in reasons.items() if why and options.families
    )
    if not able:
        message = " ".join(warnings) or "No family can learn from these photos."
        raise NotEnoughImages(message, families=list(reasons))
    return able, warnings


def choose(
    candidates: Sequence[Candidate],
    evidence: Evidence,
    extractor: FeatureExtractor,
    options: FitOptions,
    threads: int,
) -> Choice:
    """Compare the candidates, choose, and draw the chosen graph.

    Args:
        candidates: fitted, at least one with heads.
        evidence: of all their heads, in order.
        extractor: the backbone.
        options: promise and budget.
        threads: CPU threads, for timing.
    """
    chooser = _Chooser(candidates, evidence, extractor, options, threads)
    compared = chooser.compared()
    affordable = [one for one in compared if chooser.is_affordable(one)]
    warnings: tuple[str, ...] = ()
    if affordable:
        chosen = preferred(affordable)
    else:
        chosen = min(compared, key=lambda one: one.ms)
        warnings = (
            f"Nothing fits the budget of {options.budget_ms:g} ms an image on this machine; the fastest, "
            f"{chosen.name}, takes {chosen.ms:.1f} ms and was taken.",
        )
    reports = tuple(
        CandidateReport(one.name, round(one.quality, 4), round(one.ms, 2), one is chosen, reason)
        for one, reason in ((one, reason_of(one, chosen, compared, options)) for one in compared)
    )
    return chooser.finished(chosen, reports, warnings)


def best_maps(evidence: Evidence) -> tuple[bool, ...]:
    """Return which heads together mark defects best, by the average precision of each defect's cells.

    The more heads of those that do it about equally well.
    """
    heads = range(len(evidence.normals))
    side = evidence.spoilt_masks.shape[-1]
    maps = _standardised_maps(evidence, side)
    tried = {
        members: _mark_quality([maps[index] for index in members], evidence)
        for size in range(1, len(heads) + 1)
        for members in combinations(heads, size)
    }
    enough = _AS_GOOD_MAP_RATIO * max(tried.values())
    _, _, taken = max((len(members), value, members) for members, value in tried.items() if value >= enough)
    return tuple(index in taken for index in heads)


def graph_ms(graph: bytes, input_px: int, threads: int) -> float:
    """Return the median milliseconds of one photo in a fused graph, after a warm-up."""
    session = GraphSession(graph, threads=threads)
    pixels = np.random.default_rng(0).integers(0, 256, (1, input_px, input_px, 3), np.uint8)
    times_ms = []
    for _ in range(_WARM_UP_RUNS + _TIMED_RUNS):
        started_s = time.perf_counter()
        session.infer(pixels)
        times_ms.append(1000 * (time.perf_counter() - started_s))
    return float(np.median(times_ms[_WARM_UP_RUNS:]))


class _Chooser:
    """Judges, draws and times sets of candidates."""

    def __init__(
        self,
        candidates: Sequence[Candidate],
        evidence: Evidence,
        extractor: FeatureExtractor,
        options: FitOptions,
        threads: int,
    ) -> None:
        self._candidates = candidates
        self._all_heads = [head for one in candidates for head in one.heads]
        self._evidence = evidence
        self._extractor = extractor
        self._options = options
        self._threads = threads
        self._embedding = embedding_of(coarsest_tap(extractor), evidence.means)

    def compared(self) -> list[Option]:
        """Return each candidate alone and all together; where that is too slow, what lies between, too."""
        able = [index for index, one in enumerate(self._candidates) if one.heads]
        found = [self._option((index,)) for index in able]
        if len(able) > 1:
            found.append(self._option(tuple(able)))
        if not self.is_affordable(found[-1]):
            sizes = range(2, len(able))
            found += [self._option(members) for size in sizes for members in combinations(able, size)]
        return found

    def is_affordable(self, option: Option) -> bool:
        return self._options.budget_ms is None or option.ms <= self._options.budget_ms

    def finished(
        self, chosen: Option, reports: tuple[CandidateReport, ...], warnings: tuple[str, ...]
    ) -> Choice:
        evidence = self._evidence.of(chosen.heads)
        calibrated = self._calibrated(evidence, best_maps(evidence))
        type_head = self._type_head()
        heads = tuple(self._all_heads[index] for index in chosen.heads)
        with_types = {index for index, one in enumerate(self._candidates) if one.type_head is not None}
        members = sorted({*chosen.members, *with_types})
        graph = fuse(self._extractor, heads, calibrated.scorer, self._embedding, type_head)
        return Choice(
            families=tuple(self._candidates[index].family for index in members),
            heads=heads,
            type_head=type_head,
            calibrated=calibrated,
            embedding=self._embedding,
            evidence=evidence,
            graph=graph,
            reports=reports,
            warnings=warnings,
        )

    def _option(self, members: tuple[int, ...]) -> Option:
        firsts = np.cumsum([0, *(len(one.heads) for one in self._candidates)])
        places = [range(firsts[index], firsts[index + 1]) for index in members]
        heads = tuple(int(head) for place in places for head in place)
        evidence = self._evidence.of(heads)
        drawn = [self._all_heads[index] for index in heads]
        scorer = self._calibrated(evidence, None).scorer
        graph = fuse(self._extractor, drawn, scorer, self._embedding, self._type_head())
        return Option(
            name="+".join(self._candidates[index].family for index in members),
            members=members,
            heads=heads,
            quality=quality_of(evidence, self._extractor.input_px),
            ms=graph_ms(graph, self._extractor.input_px, self._threads),
        )

    def _calibrated(self, evidence: Evidence, in_map: Sequence[bool] | None) -> Calibrated:
        return calibrate(evidence, self._extractor.input_px, self._options.max_false_reject_ratio, in_map)

    def _type_head(self) -> TypeHead | None:
        return next((one.type_head for one in self._candidates if one.type_head is not None), None)


def quality_of(evidence: Evidence, input_px: int) -> float:
    """Return the chance that a defect scores above a good photo; labelled ones, if any, weigh half."""
    statistics = highest_by_group(statistics_of(evidence.normals, input_px), evidence.groups)
    standard = standard_of(statistics)
    normal = normal_scores_of(statistics, standard)

    def against(distances: Distances) -> float:
        return image_auroc(normal, scores_of(statistics_of(distances, input_px), standard))

    values = [against(evidence.spoilt)]
    if len(evidence.anomaly_masks) >= _FEWEST_ANOMALIES:
        values.append(against(evidence.anomalies))
    return float(np.mean(values))


def preferred(options: Sequence[Option]) -> Option:
    """Return the best of the largest options, unless a smaller one is clearly better."""
    most = max(len(one.members) for one in options)
    together = max((one for one in options if len(one.members) == most), key=lambda one: one.quality)
    best = max(options, key=lambda one: one.quality)
    return best if best.quality > together.quality + _CLEARLY_BETTER else together


def reason_of(one: Option, chosen: Option, compared: Sequence[Option], options: FitOptions) -> str:
    """Say in a sentence why an option was taken or not."""
    too_slow = options.budget_ms is not None and one.ms > options.budget_ms
    if one is not chosen:
        if too_slow:
            return f"Takes {one.ms:.1f} ms an image, more than the {options.budget_ms:g} ms allowed."
        if one.quality > chosen.quality:
            return f"Finds about as much as {chosen.name}, which does not rest on one way of seeing."
        return f"Finds no more than {chosen.name}."
    if len(compared) == 1:
        return "The only one that was tried."
    if too_slow:
        return "The fastest; nothing fits the time allowed."
    best_other = max(other.quality for other in compared if other is not one)
    if len(one.members) > 1:
        why = (
            "Several ways of seeing find more than one"
            if one.quality >= best_other
            else "None is clearly better, and several ways of seeing are safer where defects are new"
        )
        return (
            f"{why}: they rank {one.quality:.3f} of pairs of a defect and a good photo rightly, "
            f"the best of the others {best_other:.3f}."
        )
    return f"Clearly finds more: {one.quality:.3f} against {best_other:.3f} ranked rightly."


def _standardised_maps(evidence: Evidence, side: int) -> list[NDArray[np.float32]]:
    """Return per head (P, m, m): synthetic defects, drawn anomalies, some good photos."""
    chosen = np.unique(np.linspace(0, len(evidence.groups) - 1, _MAP_NORMALS).astype(int))
    drawn = evidence.anomaly_masks.any(axis=(1, 2))
    maps = []
    for normal, spoilt, anomalous in zip(evidence.normals, evidence.spoilt, evidence.anomalies, strict=True):
        on_map = resized(normal, side)
        parts = np.concatenate([resized(spoilt, side), resized(anomalous[drawn], side), on_map[chosen]])
        maps.append(places_of(on_map).standardised(parts))
    return maps


def _mark_quality(maps: Sequence[NDArray[np.float32]], evidence: Evidence) -> float:
    """Return the mean over defects of how well each stands out from its photo and from good photos.

    Each counts the same, however large, as in AUPRO; over the cells of all defects together the largest
    ones decide.
    """
    mean = np.mean(maps, axis=0)
    drawn = evidence.anomaly_masks[evidence.anomaly_masks.any(axis=(1, 2))]
    masks = np.concatenate([evidence.spoilt_masks, drawn])
    normal = mean[len(masks) :].ravel()[::_EACH_NORMAL_CELL]
    unmarked = np.zeros(len(normal), np.bool_)
    return float(
        np.mean(
            [
                _average_precision(np.append(one, normal), np.append(mask, unmarked))
                for one, mask in zip(mean, masks, strict=False)
            ]
        )
    )


def _average_precision(scores: NDArray[np.float32], is_marked: NDArray[np.bool_]) -> float:
    """Return the mean precision over all marked cells, best scores first."""
    marked = is_marked[np.argsort(-scores)]
    precision = np.cumsum(marked) / np.arange(1, len(marked) + 1)
    return float(precision[marked].mean())
