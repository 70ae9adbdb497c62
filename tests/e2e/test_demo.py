"""The product's main job as its user runs it, on real photos and on the synthetic line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import psutil
import pytest

from tests.e2e.line import loupe

pytestmark = [pytest.mark.real, pytest.mark.timeout(420)]

COOKIES = "aws-lookout-cookies/dataset-files/training-images"


def processes_of(home: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("LOUPE_HOME") == str(home):
                found.append(process)
        except psutil.Error:
            continue
    return found


def run_demo(tmp_path: Path, *words: str) -> dict[str, object]:
    home, report = tmp_path / "home", tmp_path / "report.json"
    loupe(home, "demo", "--report", str(report), *words, timeout_s=400)
    assert processes_of(home) == []
    found: dict[str, object] = json.loads(report.read_text())
    return found


@pytest.mark.photos
def test_the_demo_on_real_photos_judges_every_one_and_tells_them_apart(tmp_path: Path, data: Path) -> None:
    photos = tmp_path / "photos"
    for kind, mark in (("normal", "normal"), ("anomaly", "anomaly")):
        (photos / kind).mkdir(parents=True)
        for path in (data / COOKIES).glob(f"{mark}*"):
            shutil.copy(path, photos / kind / path.name)
    report = run_demo(tmp_path, "--images", str(photos), "--cameras", "2", "--fps", "4")
    frames, model, judged = report["frames"], report["model"], report["inspections"]
    assert isinstance(frames, dict)
    assert isinstance(model, dict)
    assert isinstance(judged, list)
    # 31 normals: round(0.7 * 31) = 22 train; 9 normals and 32 anomalies are filmed.
    assert model["train_images"] == 22
    assert frames == {"captured": 41, "judged": 41, "quarantined": 0, "shed": 0}
    assert len({one["source"] for one in judged}) == 41
    assert model["image_auroc"] >= 0.95


def test_the_demo_without_arguments_films_the_synthetic_line(tmp_path: Path) -> None:
    report = run_demo(tmp_path, "--fps", "10")
    frames, latency, parts = report["frames"], report["latency_ms"], report["parts"]
    assert isinstance(frames, dict)
    assert isinstance(latency, dict)
    assert isinstance(parts, dict)
    assert frames["captured"] == frames["judged"] > 0
    assert 0 < latency["p50"] <= latency["p95"] <= latency["p99"]
    assert {"kafka", "redis", "s3", "triton", "ray", "results", "trainer", "hosting"} <= set(parts)
