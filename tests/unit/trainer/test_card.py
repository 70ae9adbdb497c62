"""The card: what it says, and that it is one page that loads nothing."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser

import numpy as np

from services.domain.label import Verdict
from services.domain.model_version import (
    AnomalyType,
    Backbone,
    Calibration,
    CandidateReport,
    Manifest,
    TensorSpec,
    Variant,
)
from services.trainer.card.pictures import Shown, walls_of
from services.trainer.card.plots import Group, score_range
from services.trainer.card.rendering import CardFacts, render_card
from services.trainer.dataset import SkippedImage
from services.trainer.evaluation.outcome import Outcome
from services.trainer.evaluation.report import evaluate

CALIBRATION = Calibration(1.0, 0.0, 0.6, 30, 0.02, 0.8, 1.3, map_threshold=4.0, map_sigma_px=2.0)
MANIFEST = Manifest(
    project="plates",
    version="v1",
    created_at=datetime(2026, 11, 21, 9, tzinfo=UTC),
    family="memory+aligned",
    inputs=(TensorSpec("pixels", "uint8", (-1, 224, 224, 3)),),
    outputs=(TensorSpec("score", "float32", (-1,)), TensorSpec("map", "float32", (-1, 56, 56))),
    calibration=CALIBRATION,
    backbone=Backbone("tiny", "ab" * 32, "Apache-2.0"),
    data_digest="cd" * 32,
    train_images=30,
    files={},
    metrics={"fit_s": 2.5, "graph_ms": 4.0, "file_bytes": 5e6},
    warnings=("Only 30 photos <so far>.",),
    types=(AnomalyType("scratch", "#d62728", 0.5),),
    variants=(Variant("fp32", "onnxruntime", "model.onnx", "", 4.0),),
    candidates=(
        CandidateReport("memory", 0.91, 3.0, False, "Worse on made-up defects."),
        CandidateReport("memory+aligned", 0.97, 4.0, True, "Both together find most."),
    ),
)


def shown(name: str, truth: Verdict, score: float, *, is_masked: bool = False) -> Shown:
    anomaly_map = np.zeros((56, 56), np.float32)
    anomaly_map[10:20, 10:20] = 8
    mask = np.zeros((224, 224), bool)
    mask[40:80, 40:80] = True
    pixels = np.full((224, 224, 3), 120, np.uint8)
    return Shown(name, pixels, anomaly_map, score, truth, score >= 1, mask if is_masked else None)


def facts() -> CardFacts:
    rng = np.random.default_rng(0)
    good, bad = rng.normal(0, 0.5, 30).astype(np.float32), rng.normal(3, 0.5, 12).astype(np.float32)
    good[0] = 1.4
    outcomes = [
        Outcome(
            f"{truth}-{n}", truth, float(s), Verdict.ANOMALY if s >= 1 else Verdict.NORMAL, 0.9, types, types
        )
        for truth, scores, types in ((Verdict.NORMAL, good, ()), (Verdict.ANOMALY, bad, ("scratch",)))
        for n, s in enumerate(scores)
    ]
    pictures = [
        shown("a.jpg", Verdict.ANOMALY, 0.4, is_masked=True),
        shown("b.jpg", Verdict.ANOMALY, 7.0),
        shown("c.jpg", Verdict.NORMAL, 1.4),
        shown("d<b>.jpg", Verdict.NORMAL, 0.1),
    ]
    return CardFacts(
        manifest=MANIFEST,
        evaluation=evaluate(outcomes),
        measured_on="Each photo was judged by a model that does not know it.",
        normal_scores=good,
        anomalous_scores=bad,
        made_up_scores=rng.normal(2, 1, 40).astype(np.float32),
        shown=pictures,
        skipped=[SkippedImage("x.jpg", "It is damaged.")],
    )


class Balanced(HTMLParser):
    """Fails on a tag that is not closed in order; remembers the words."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.words: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value or "" for name, value in attrs if name in {"src", "href"}]
        if tag not in {"meta", "br", "img", "line", "rect", "circle", "polyline"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in {"line", "rect", "circle", "polyline"}:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def read(page: str) -> Balanced:
    parser = Balanced()
    parser.feed(page)
    assert parser.open == []
    return parser


def test_a_card_says_what_it_is_about() -> None:
    words = " ".join(" ".join(read(render_card(facts())).words).split())
    for said in (
        "Only 30 photos <so far>.", "image AUROC", "95 %:", "Both together find most.", "scratch",
        "Missed anomalies (1)", "False alarms (1)", "d<b>.jpg", "It is damaged.", "fp32, serves", "2.0%",
    ):  # fmt: skip
        assert said in words, said


def test_a_card_loads_nothing_and_runs_nothing() -> None:
    page = render_card(facts())
    assert "<script" not in page
    assert all(address.startswith("data:image/jpeg;base64,") for address in read(page).addresses)
    assert not re.search(r"url\(|@import|https?://", page)


def test_a_card_without_anomalies_says_so() -> None:
    bare = CardFacts(
        manifest=replace(MANIFEST, candidates=(), types=(), warnings=()),
        evaluation=None,
        measured_on="Nothing was labelled but good parts.",
        normal_scores=np.linspace(-0.5, 0.5, 5, dtype=np.float32),
    )
    page = render_card(bare)
    assert "never tried on a real defect" in page
    assert "<h3>ROC" not in page
    assert not re.search(r"\bnan\b", page)


def test_every_number_has_words_and_an_interval_without_width_is_not_told() -> None:
    measured = {"int8_ms": 3.2, "int8_agreement_ratio": 1.0, "mean_iou.scratch": 0.7057}
    given = replace(facts(), manifest=replace(MANIFEST, metrics={**MANIFEST.metrics, **measured}))
    words = " ".join(" ".join(read(render_card(given)).words).split())
    for said in ("one image, int8 3.2 ms", "same verdicts in int8 100.0%", "mean IoU of scratch 0.706"):
        assert said in words, said
    # All twelve anomalies were found, so each resample finds all: that says nothing of others.
    assert "anomalies found (recall) 100.0% good" in words
    assert "100.0% to 100.0%" not in words


def test_mistakes_come_first_and_the_worst_of_them_first() -> None:
    many = [shown(f"{n}", Verdict.ANOMALY, n / 20) for n in range(20)]
    walls = walls_of([*many, shown("good", Verdict.NORMAL, 5.0)], CALIBRATION)
    assert [wall.title for wall in walls] == ["Missed anomalies", "False alarms"]
    assert walls[0].count == 20
    assert [name for _, name, _ in walls[0].figures] == [str(n) for n in range(8)]


def test_equal_scores_still_have_a_range() -> None:
    low, high = score_range([Group("all alike", "red", np.zeros(3, np.float32))], threshold=0.0)
    assert high > low
