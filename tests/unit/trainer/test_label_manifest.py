"""Manifests of SageMaker and Lookout for Vision."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from services.domain.errors import BadRequest, Rejected
from services.domain.label import Verdict
from services.trainer.label_manifest import read_manifest
from services.trainer.labelling import MaskFile, Statement

NORMAL: dict[str, Any] = {
    "source-ref": "s3://plant-a/img/0001.png",
    # The number says anomaly, the name normal: the name decides.
    "any-name": 1,
    "any-name-metadata": {
        "class-name": "normal", "type": "groundtruth/image-classification", "human-annotated": "yes",
        "creation-date": "2024-05-02T08:00:00.000",
    },
}  # fmt: skip
ANOMALY: dict[str, Any] = {
    "source-ref": "img/0107.png",
    "defect-metadata": {"class-name": "anomaly", "type": "groundtruth/image-classification"},
    "m-ref": "s3://plant-a/masks/0107.png",
    "m-ref-metadata": {
        "internal-color-map": {
            "0": {"class-name": "BACKGROUND", "hex-color": "#ffffff", "confidence": 0.0},
            "1": {"class-name": "chip", "hex-color": "#D62728", "confidence": 0.0},
            "2": {"class-name": "dent", "hex-color": "#1f77b4", "confidence": 0.0},
        },
        "type": "groundtruth/semantic-segmentation",
    },
}


def read(folder: Path, *lines: object) -> list[tuple[str, Statement | Rejected]]:
    path = folder / "train.manifest"
    path.write_text("\n".join(one if isinstance(one, str) else json.dumps(one) for one in lines) + "\n\n")
    return list(read_manifest(path))


def test_lines_become_statements(tmp_path: Path) -> None:
    (first, normal), (second, anomaly) = read(tmp_path, NORMAL, ANOMALY)
    assert (first, second) == ("line 1, s3://plant-a/img/0001.png", "line 2, img/0107.png")
    when = datetime(2024, 5, 2, 8, tzinfo=UTC)
    assert normal == Statement("s3://plant-a/img/0001.png", Verdict.NORMAL, said_at=when)
    mask = "s3://plant-a/masks/0107.png"
    assert anomaly == Statement(
        str(tmp_path / "img/0107.png"), Verdict.ANOMALY, (),
        (MaskFile("chip", mask, "#d62728"), MaskFile("dent", mask, "#1f77b4")),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("{", "not JSON"),
        ("[]", "not an object with a source-ref"),
        ({"source-ref": "a.png"}, "No attribute has metadata"),
        ({**NORMAL, "any-name-metadata": {**NORMAL["any-name-metadata"], "class-name": "scratch"}},
         "'scratch', not normal or anomaly, so it is unlabelled"),
        ({**ANOMALY, "m-ref": 1}, "m-ref needs the address of a mask"),
        ({**ANOMALY, "m-ref-metadata": {
            "type": "groundtruth/semantic-segmentation",
            "internal-color-map": {"1": {"class-name": "x", "hex-color": "red"}}}},
         "'red' is not a colour"),
    ],
)  # fmt: skip
def test_a_line_that_says_nothing_names_its_reason_and_the_next_is_read(
    tmp_path: Path, line: object, sentence: str
) -> None:
    (_, refused), (_, good) = read(tmp_path, line, NORMAL)
    assert isinstance(refused, Rejected)
    assert sentence in refused.message
    assert isinstance(good, Statement)


def test_a_manifest_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="cannot be read"):
        list(read_manifest(tmp_path / "none"))


def test_a_photo_is_no_manifest(tmp_path: Path) -> None:
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(BadRequest, match="is not text, so it is no manifest"):
        list(read_manifest(photo))
