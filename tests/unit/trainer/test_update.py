"""Quick updates: a false alarm is accepted, a miss is found, and nothing else changes its verdict."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image, ImageDraw

from services.domain.errors import Rejected, UnknownProject
from services.domain.label import Origin, Split, Verdict
from services.domain.model_version import Manifest, Variant
from services.trainer.fit import FittedModel
from services.trainer.model_folder import CARD_FILE, write_folder
from services.trainer.reviewed_memory import MemoryGraph
from services.trainer.update import QuickUpdate, most_photos
from services.vision.decode import decode
from services.vision.golden import read_golden, variant_golden_file
from services.vision.runtime import OnnxModel, verify_folder
from tests.unit.trainer.judges import Project, asked
from tests.unit.trainer.pictures import picture

FRESH = range(700, 716)


def drawn_on(seed: int, draw: Callable[[ImageDraw.ImageDraw], None]) -> bytes:
    """Return a good plate with something drawn on it."""
    image = Image.open(BytesIO(picture(seed)))
    draw(ImageDraw.Draw(image))
    buffer = BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def with_sticker(seed: int) -> bytes:
    """A good plate with a sticker that the model was never shown; it is far above the threshold."""
    return drawn_on(seed, lambda pen: pen.rectangle((70, 130, 90, 150), fill=(60, 80, 160)))


def with_faint_line(seed: int, grey: int) -> bytes:
    return drawn_on(seed, lambda pen: pen.line((80, 20, 100, 22), fill=(grey, grey, grey), width=2))


def scores(model: OnnxModel, images: Sequence[bytes]) -> list[float]:
    return [float(model.infer(decode(one).pixels[None]).scores[0]) for one in images]


def rejected(model: OnnxModel) -> int:
    """How many of fresh good plates are rejected."""
    found = scores(model, [picture(seed) for seed in FRESH])
    return sum(one >= model.manifest.calibration.threshold for one in found)


@pytest.fixture
def project(fitted: FittedModel, tmp_path: Path) -> Project:
    """A project that serves the fitted plates, and knows what it was fitted from."""
    project = Project(tmp_path)
    project.promotion.consider(fitted.folder, fitted.manifest, asked("t1"))
    for seed in range(8):
        project.label(picture(seed), Verdict.NORMAL)
    return project


@pytest.fixture
def missed(fitted: FittedModel) -> bytes:
    """A plate with a line so faint that it passes."""
    model = OnnxModel(fitted.folder)
    lines = [with_faint_line(600, grey) for grey in range(200, 150, -5)]
    return next(one for one in lines if scores(model, [one])[0] < fitted.manifest.calibration.threshold)


def update(project: Project, name: str = "u1") -> tuple[Path, Manifest]:
    project.clock.advance(60)
    work = QuickUpdate(project.registry, project.datasets, project.store, project.clock)
    folder = work.run(asked(name, is_update=True), project.folder / name)
    return folder, verify_folder(folder)


def test_a_false_alarm_is_accepted_and_defects_are_still_found(project: Project, fitted: FittedModel) -> None:
    before = OnnxModel(fitted.folder)
    threshold = fitted.manifest.calibration.threshold
    alarm, scratched = with_sticker(500), [picture(seed, is_bad=True) for seed in range(300, 304)]
    assert scores(before, [alarm])[0] > threshold
    entry_id = project.label(alarm, Verdict.NORMAL, origin=Origin.REVIEW)
    folder, manifest = update(project)
    after = OnnxModel(folder)
    assert scores(after, [alarm])[0] < threshold
    assert min(scores(after, scratched)) > threshold
    assert rejected(after) <= rejected(before)
    # The same threshold and promise, the same size, another version that says what it is.
    assert manifest.calibration == fitted.manifest.calibration
    assert (manifest.parent, manifest.project) == ("v1", "plates")
    assert manifest.warnings[-1] == (
        "A quick update of v1: 1 false alarms and 0 misses went into its memory; its figures were not "
        "measured again."
    )
    assert set(manifest.metrics) == {"fit_s", "file_bytes"}
    (saw,) = (uri for uri in project.store.list("s3://loupe-datasets") if uri.endswith(manifest.data_digest))
    (line,) = project.store.get(saw).splitlines()
    assert json.loads(line)["entry_id"] == entry_id
    assert manifest.version in (folder / CARD_FILE).read_text()
    decision = project.promotion.consider(folder, manifest, asked("u1", is_update=True))
    assert decision.is_promoted
    assert project.registry.record("plates", manifest.version).parent == "v1"


def test_the_size_of_the_memory_stays(project: Project, fitted: FittedModel) -> None:
    project.label(with_sticker(500), Verdict.NORMAL, origin=Origin.REVIEW)
    folder, manifest = update(project)
    sizes = []
    for place in (fitted.folder, folder):
        memory = MemoryGraph(onnx.load(place / "model.onnx"), manifest.calibration)
        sizes.append([memory.normals(bank).shape for bank in memory.banks])
        assert bool(memory.accepted.counts) is (place == folder)
    assert sizes[0] == sizes[1]
    assert (folder / "model.onnx").stat().st_size < 1.05 * (fitted.folder / "model.onnx").stat().st_size


def test_a_miss_is_found_and_good_plates_pass_as_before(
    project: Project, fitted: FittedModel, missed: bytes
) -> None:
    project.label(missed, Verdict.ANOMALY, origin=Origin.REVIEW)
    folder, manifest = update(project)
    before, after = OnnxModel(fitted.folder), OnnxModel(folder)
    (score,) = scores(after, [missed])
    assert score > manifest.calibration.uncertain_high
    good = [picture(seed) for seed in FRESH]
    assert scores(after, good) == pytest.approx(scores(before, good), abs=1e-4)
    # The map shows where it is: the line's middle is at (90, 21) of 160 pixels, the map has 56 cells.
    anomaly_map = after.infer(decode(missed).pixels[None]).maps[0]
    down, across = np.unravel_index(int(anomaly_map.argmax()), anomaly_map.shape)
    assert abs(down - 21 / 160 * 56) < 6
    assert abs(across - 90 / 160 * 56) < 6
    assert project.promotion.consider(folder, manifest, asked("u1")).is_promoted


def test_a_second_update_keeps_the_first(project: Project, missed: bytes) -> None:
    alarm = with_sticker(500)
    project.label(alarm, Verdict.NORMAL, origin=Origin.REVIEW)
    first, manifest = update(project, "u1")
    assert project.promotion.consider(first, manifest, asked("u1")).is_promoted
    project.label(missed, Verdict.ANOMALY, origin=Origin.REVIEW)
    second, manifest = update(project, "u2")
    found = scores(OnnxModel(second), [alarm, missed])
    assert found[0] < manifest.calibration.threshold < found[1]
    assert manifest.parent == verify_folder(first).version
    assert sum("A quick update of" in one for one in manifest.warnings) == 1


def test_a_reviewer_who_changes_a_mind_takes_the_example_back(project: Project, missed: bytes) -> None:
    project.label(missed, Verdict.ANOMALY, origin=Origin.REVIEW)
    first, manifest = update(project, "u1")
    assert project.promotion.consider(first, manifest, asked("u1")).is_promoted
    project.label(missed, Verdict.NORMAL, origin=Origin.REVIEW)
    second, manifest = update(project, "u2")
    assert scores(OnnxModel(second), [missed])[0] < manifest.calibration.threshold


def test_a_faster_precision_gets_the_same_memory(fitted: FittedModel, tmp_path: Path, missed: bytes) -> None:
    """The same graph once more under another name, as `int8` would be."""
    project = Project(tmp_path)
    model, golden = (fitted.folder / "model.onnx").read_bytes(), read_golden(fitted.folder)
    variants = (
        Variant("fp32", "onnxruntime", "model.onnx", "", 6.0),
        Variant("int8", "onnxruntime", "variants/int8.onnx", "", 4.0, golden="golden/int8.npz"),
    )
    files = {"variants/int8.onnx": model, "golden/int8.npz": variant_golden_file(golden.outputs)}
    served = replace(fitted.manifest, variants=variants, serving="int8")
    folder, manifest = write_folder(
        tmp_path / "both", served, model=model, golden=golden, card="<p>", variants=files
    )
    assert project.promotion.consider(folder, manifest, asked("t1")).is_promoted
    alarm = with_sticker(500)
    project.label(alarm, Verdict.NORMAL, origin=Origin.REVIEW)
    project.label(missed, Verdict.ANOMALY, origin=Origin.REVIEW)
    updated, manifest = update(project)
    assert [one.name for one in manifest.variants] == ["fp32", "int8"]
    running = OnnxModel(updated)
    assert running.variant.name == "int8"
    found = scores(running, [alarm, missed])
    assert found[0] < manifest.calibration.threshold < found[1]


def test_test_images_are_not_looked_at(project: Project) -> None:
    project.label(with_sticker(500), Verdict.NORMAL, origin=Origin.REVIEW)
    lost = project.label(picture(900), Verdict.NORMAL, split=Split.TEST)
    entry = next(one for one in project.datasets.entries("plates") if str(one.entry_id) == lost)
    project.store.put(entry.image.uri, b"another")  # reading it would fail
    update(project)


def test_reviews_of_test_images_are_for_the_replay_alone(project: Project) -> None:
    project.label(with_sticker(500), Verdict.NORMAL, origin=Origin.REVIEW, split=Split.TEST)
    with pytest.raises(Rejected, match="No verdict on an image of plates was reviewed"):
        update(project)


def test_the_larger_the_input_the_fewer_photos_are_kept_at_a_time(fitted: FittedModel) -> None:
    plain = fitted.manifest
    (spec,) = plain.inputs
    sides = {64: 500, 224: 500, 416: 144, 896: 32}
    manifests = [replace(plain, inputs=(replace(spec, shape=(-1, side, side, 3)),)) for side in sides]
    assert [most_photos(500, one) for one in manifests] == list(sides.values())


def test_what_is_no_matter_of_an_update_is_a_sentence(project: Project, tmp_path: Path) -> None:
    with pytest.raises(Rejected, match="No verdict on an image of plates was reviewed"):
        update(project)
    project.label(picture(400), Verdict.NORMAL, origin=Origin.REVIEW)
    with pytest.raises(Rejected, match="judges all 1 reviewed images right; there is nothing to update"):
        update(project, "u2")
    # A good plate that somebody calls bad: no patch of it is far from all normal ones.
    project.label(picture(0), Verdict.ANOMALY, origin=Origin.REVIEW)
    with pytest.raises(Rejected, match=r"A quick update of v1 does not do: .* A whole fit is needed"):
        update(project, "u3")


def test_a_family_without_memory_needs_a_whole_fit(tmp_path: Path) -> None:
    project = Project(tmp_path)
    with pytest.raises(UnknownProject):
        update(project)
    project.consider("v1")
    with pytest.raises(Rejected, match=r"Version v1 \(brightness\) has no memory that could be corrected"):
        update(project, "u2")
