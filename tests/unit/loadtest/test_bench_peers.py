"""`make bench-peers`: weights find their places, both columns stand in one table, a failed peer is a note."""

from __future__ import annotations

import argparse
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from loadtest.bench_peers import MODELS, Contestant, _judged, _write_photos, peer, table
from loadtest.bench_peers_child import _timm_name
from services.domain.label import Verdict
from services.trainer.bench.sets import BenchSet
from services.trainer.dataset import LabelledImage
from tests.unit.trainer.bench.made import png


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("_conv_stem.weight", "conv_stem.weight"),
        ("_bn0.running_mean", "bn1.running_mean"),
        # The first stage has no expansion, so its norms are counted from the depthwise convolution.
        ("_blocks.0._depthwise_conv.weight", "blocks.0.0.conv_dw.weight"),
        ("_blocks.0._bn1.weight", "blocks.0.0.bn1.weight"),
        ("_blocks.0._project_conv.weight", "blocks.0.0.conv_pw.weight"),
        # Stages have 1, 2, 2, 3, 3, 4 and 1 blocks: block 4 is the second of the third.
        ("_blocks.4._expand_conv.weight", "blocks.2.1.conv_pw.weight"),
        ("_blocks.4._bn0.bias", "blocks.2.1.bn1.bias"),
        ("_blocks.4._bn2.bias", "blocks.2.1.bn3.bias"),
        ("_blocks.15._project_conv.weight", "blocks.6.0.conv_pwl.weight"),
    ],
)
def test_weights_find_their_places(ours: str, theirs: str) -> None:
    assert _timm_name(ours) == theirs


@pytest.fixture
def one() -> BenchSet:
    """Two normal photos to learn from, one held back, one anomaly with its left half marked."""
    half = np.zeros((32, 32), np.uint8)
    half[:, :16] = 255
    file = BytesIO()
    Image.fromarray(half).save(file, "PNG")
    bad = LabelledImage(png(200), "bad.png", Verdict.ANOMALY, masks={"spot": file.getvalue()})
    train = tuple(LabelledImage(png(50 + n), f"{n}.png") for n in range(2))
    return BenchSet("plates", train, (LabelledImage(png(60), "held.png"),), (bad,), {})


def test_what_the_peer_said_is_held_against_the_right_photos(one: BenchSet, tmp_path: Path) -> None:
    test = _write_photos(one, tmp_path)
    assert sorted(path.name for path in (tmp_path / "train").iterdir()) == ["00000.png", "00001.png"]
    assert [image.name for image in test] == ["held.png", "bad.png"]
    maps = np.zeros((2, 224, 224), np.float32)
    maps[1, :, :112] = 1
    np.save(tmp_path / "scores.npy", np.array([0.1, 0.9], np.float32))
    np.save(tmp_path / "labels.npy", np.array([True, True]))
    np.save(tmp_path / "maps.npy", maps)
    metrics = _judged(test, tmp_path).evaluation().metrics
    assert metrics["image_auroc"] == metrics["pixel_auroc"] == 1
    assert (metrics["false_reject_ratio"], metrics["recall_ratio"]) == (1, 1)


def test_both_columns_stand_in_one_table(one: BenchSet) -> None:
    columns = [
        Contestant("Loupe", {"image_auroc": 0.998, "fit_s": 2.04, "serving_ms": 3.0}),
        Contestant("PaDiM", {"image_auroc": 1.0, "fit_s": 6.2}, note="Its export failed."),
    ]
    assert table(one, columns) == [
        "| plates, 2; 1 + 1 | Loupe | PaDiM |",
        "|---|---|---|",
        "| image AUROC | .998 | 1.000 |",
        "| fit s | 2.0 | 6.2 |",
        "| ms as served | 3.0 | – |",
        "",
        "PaDiM: Its export failed.",
    ]


def test_a_peer_that_crashes_is_a_note(one: BenchSet, tmp_path: Path) -> None:
    crashing = tmp_path / "python"
    crashing.write_text("#!/bin/sh\necho out of memory >&2\nexit 1\n")
    crashing.chmod(0o755)
    asked = argparse.Namespace(python=crashing, seed=0, max_gib=1.0)
    column = peer(replace(MODELS["padim"], title="Peer"), one, asked)
    assert (column.title, column.figures, column.note) == ("Peer", {}, "none: out of memory")
