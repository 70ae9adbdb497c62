"""What `loupe fit` prints, at the width of a narrow terminal and for a pipe."""

from __future__ import annotations

from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from services.cli.fit_views import print_forecast, print_outcome
from services.domain.model_version import AnomalyType, CandidateReport, Manifest, ModelAnnouncement, Variant
from services.domain.promotion import Decision
from services.trainer.commands import FitOutcome, Forecast
from services.trainer.dataset import SkippedImage
from tests.unit.trainer.models import CREATED_AT, model_folder

WHY = "It found 98 % of the synthetic defects, 7 % more than the next one, in less than the budget."


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    _, manifest = model_folder(tmp_path)
    return replace(
        manifest,
        family="memory+aligned",
        metrics={"image_auroc": 0.9912, "mean_iou.cracked": 0.61, "fit_s": 2.5, "file_bytes": 11_300_000},
        intervals={"image_auroc": (0.95, 1.0)},
        candidates=(
            CandidateReport("memory", 0.91, 5.0, is_chosen=False, reason="Finds less."),
            CandidateReport("memory+aligned", 0.98, 6.5, is_chosen=True, reason=WHY),
        ),
        variants=(
            Variant("fp32", "onnxruntime", "model.onnx", "", 6.5),
            Variant("bf16", "openvino", "model.onnx", "bf16", 3.1),
        ),
        serving="bf16",
        types=(AnomalyType("cracked", "#ff0000", 0.5),),
        tiles=2,
        warnings=(
            "30 photos support a promise of 3.2 % by counting; the rest is an estimate of their spread.",
        ),
    )


def printed(manifest: Manifest, *, is_terminal: bool, is_promoted: bool = True) -> str:
    console = Console(
        file=StringIO(),
        width=80,
        force_terminal=is_terminal,
        color_system=None,
        highlight=False,
        soft_wrap=not is_terminal,
    )
    print_outcome(console, outcome_of(manifest, is_promoted=is_promoted), 12.34, is_up=False)
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def outcome_of(
    manifest: Manifest, *, is_promoted: bool = True, skipped: tuple[SkippedImage, ...] = ()
) -> FitOutcome:
    return FitOutcome(
        ModelAnnouncement("plates", "v1", "s3://x", "", CREATED_AT),
        Decision(is_promoted, ("It is the first version.",)),
        manifest,
        Path("models/plates/v1"),
        skipped,
        "Measured on 12 test photos, of which nothing was learnt.",
    )


def test_everything_that_matters_is_told(manifest: Manifest) -> None:
    told = printed(manifest, is_terminal=False)
    for part in (
        f"Chosen: memory+aligned: {WHY}",
        "2 % of good parts",
        "fp32 6.5 ms, bf16 3.1 ms an image; bf16 serves",
        "\nMeasured on 12 test photos, of which nothing was learnt.\n",
        "image AUROC",
        "0.950 - 1.000",
        "mean IoU of cracked",
        "none (Apache-2.0)",
        "2 x 2",
        "Note: 30 photos support",
        "It is the first version.",
        "Next: loupe inspect IMAGE --project plates",
    ):
        assert part in told
    assert told.rstrip().endswith("Card: models/plates/v1/card.html")


def test_no_line_of_a_terminal_is_longer_than_it(manifest: Manifest) -> None:
    lines = printed(manifest, is_terminal=True).splitlines()
    assert max(map(len, lines)) <= 80
    assert any(line.startswith("Chosen: memory+aligned") for line in lines)


def test_what_was_not_measured_is_not_told(manifest: Manifest) -> None:
    bare = replace(
        manifest, metrics={"file_bytes": 1}, intervals={}, candidates=(), variants=(), types=(), tiles=1
    )
    told = printed(bare, is_terminal=False)
    assert "none: there is no anomalous photo that could be used" in told
    for part in ("measured", "Measured", "speed", "tiles", "types"):
        assert part not in told


def test_an_interval_without_width_says_nothing_and_is_not_told(manifest: Manifest) -> None:
    perfect = replace(manifest, metrics={**manifest.metrics, "f1": 1.0}, intervals={"f1": (1.0, 1.0)})
    assert "1.000 - 1.000" not in printed(perfect, is_terminal=False)


def test_all_that_was_left_out_is_in_the_report(manifest: Manifest) -> None:
    skipped = (SkippedImage("torn.png", "It is damaged."),)
    report = outcome_of(manifest, skipped=skipped).report()
    assert report["measured_on"] == "Measured on 12 test photos, of which nothing was learnt."
    assert report["skipped"] == [{"name": "torn.png", "reason": "It is damaged."}]


def test_a_version_that_does_not_serve_says_so(manifest: Manifest) -> None:
    assert "Not promoted: It is the first version." in printed(manifest, is_terminal=False, is_promoted=False)


def test_tiles_are_priced() -> None:
    console = Console(file=StringIO(), width=200)
    print_forecast(console, Forecast(416, 20.0), 2)
    assert isinstance(console.file, StringIO)
    assert "4 tiles, together 416 pixels wide" in console.file.getvalue()
    assert "20 ms an image on this machine, 4 x 5.0" in console.file.getvalue()
