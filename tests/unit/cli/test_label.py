"""`loupe label` without servers: what it understands, what it publishes, and its sentences."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest
from PIL import Image
from sqlalchemy import Engine
from typer.testing import CliRunner

from services.adapters.broker.memory import MemoryBroker, MemoryProducer
from services.adapters.broker.protocol import Partition
from services.adapters.broker.reader import MemoryTopicReader
from services.adapters.cache.memory import MemoryCache
from services.adapters.clock import FakeClock
from services.adapters.database import migrate, open_engine
from services.adapters.object_store.store import DATASETS_BUCKET, ObjectStore, folder_store
from services.cli.label import Wish, as_json_of, image_of, login_name, say_all, set_aside, wishes_of
from services.cli.main import app
from services.domain.errors import BadRequest, Rejected
from services.domain.label import Label, Split, Verdict, entry_id_of
from services.domain.topics import FRAMES, FRAMES_DLQ, LABELS
from services.results.pixels import PixelFinder
from services.trainer.datasets import Datasets
from services.trainer.label_manifest import read_manifest
from services.trainer.labelling import Labeller, MaskFile, Statement
from tests.unit.results.builders import letter, publish_bare, verdict, verdict_records
from tests.unit.results.conftest import Bench, bench_of
from tests.unit.trainer.pictures import picture

runner = CliRunner()
AT = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LOUPE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("LOUPE_KAFKA_BOOTSTRAP", raising=False)
    monkeypatch.delenv("LOUPE_DATABASE_URL", raising=False)
    return tmp_path / "home"


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    url = f"sqlite:///{tmp_path / 'loupe.db'}"
    migrate(url)
    return open_engine(url)


@pytest.fixture
def broker() -> MemoryBroker:
    return MemoryBroker()


@pytest.fixture
def labeller(tmp_path: Path, engine: Engine, broker: MemoryBroker) -> Labeller:
    store = folder_store(tmp_path / "s3")
    finder = PixelFinder(engine, store, lambda: MemoryTopicReader(broker))
    return Labeller(
        "plates", "ada",
        store=store, producer=MemoryProducer(broker),
        frame_image=lambda frame_id: image_of(frame_id, finder, store), now=lambda: AT,
    )  # fmt: skip


def put(path: Path, data: bytes = b"x") -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return str(path)


def test_a_file_needs_a_verdict_and_gets_its_types_and_masks_in_order(tmp_path: Path) -> None:
    file = put(tmp_path / "a.png")
    with pytest.raises(BadRequest, match=r"Say what .*a.png shows"):
        wishes_of(file, None, [], [])
    ((_, said),) = wishes_of(file, Verdict.ANOMALY, ["dent", "scratch"], ["1.png", "2.png"])
    drawn = (MaskFile("dent", "1.png"), MaskFile("scratch", "2.png"))
    assert said == Statement(file, Verdict.ANOMALY, ("dent", "scratch"), drawn)
    ((_, said),) = wishes_of(file, Verdict.ANOMALY, [], ["1.png"])
    assert isinstance(said, Statement)
    assert said.masks == (MaskFile("anomaly", "1.png"),)


def test_one_mask_may_have_a_colour_per_type(tmp_path: Path) -> None:
    file = put(tmp_path / "a.png")
    ((_, said),) = wishes_of(file, Verdict.ANOMALY, ["dent=#1F77B4", "scratch=d62728"], ["m.png"])
    assert isinstance(said, Statement)
    assert said.types == ("dent", "scratch")
    assert said.masks == (MaskFile("dent", "m.png", "#1f77b4"), MaskFile("scratch", "m.png", "#d62728"))


@pytest.mark.parametrize(
    ("types", "masks", "sentence"),
    [
        (["dent"], ["1.png", "2.png"], "1 types and 2 masks"),
        (["dent=#ff0000"], [], "Types with colours need one --mask"),
        (["dent=#ff0000", "scratch"], ["1.png"], "a colour for each type"),
        (["dent=red"], ["1.png"], "'red' is not a colour"),
    ],
)
def test_types_and_masks_that_do_not_pair_are_refused(
    tmp_path: Path, types: list[str], masks: list[str], sentence: str
) -> None:
    with pytest.raises(BadRequest, match=sentence):
        wishes_of(put(tmp_path / "a.png"), Verdict.ANOMALY, types, masks)


def test_what_is_neither_file_nor_frame_is_said_so() -> None:
    with pytest.raises(BadRequest, match=r"nothing\.png is neither a file, a folder nor a frame's id"):
        wishes_of("nothing.png", Verdict.NORMAL, [], [])


def test_a_folder_is_imported_with_its_masks_and_tells_what_was_refused(
    tmp_path: Path, labeller: Labeller, broker: MemoryBroker, engine: Engine
) -> None:
    photos = tmp_path / "photos"
    put(photos / "normal/1.png", picture(1))
    put(photos / "normal/2.png", b"no image")
    put(photos / "anomaly/3.png", picture(3, is_bad=True))
    put(photos / "masks/scratch/3.png", picture_mask())
    put(photos / "masks/9.png", picture_mask())
    outcome = say_all(labeller, wishes_of(str(photos), None, [], []), 4, is_alone=False)
    assert (outcome.count(Verdict.NORMAL), outcome.count(Verdict.ANOMALY), outcome.masks) == (1, 1, 1)
    assert [(Path(name).name, error.cause) for name, error in outcome.refused] == [
        ("2.png", "UnreadableImage"),
        ("9.png", "BadRequest"),
    ]
    told = as_json_of("plates", outcome)
    assert json.loads(json.dumps(told)) | {"labels": [], "refused": []} == {
        "project": "plates", "normal": 1, "anomaly": 1, "masks": 1, "labels": [], "refused": [],
    }  # fmt: skip
    assert len(broker.records(LABELS.name)) == 2


def picture_mask() -> bytes:
    from tests.unit.trainer.test_labelling import mask

    return mask()


def test_a_manifest_is_imported_line_by_line_with_its_colours(tmp_path: Path, labeller: Labeller) -> None:
    put(tmp_path / "a.png", picture(1, is_bad=True))
    pixels = Image.new("RGB", (160, 160), "#ffffff")
    pixels.paste("#d62728", (5, 5, 15, 15))
    pixels.save(tmp_path / "mask.png")
    colours = {"0": {"class-name": "BACKGROUND", "hex-color": "#ffffff"},
               "1": {"class-name": "chip", "hex-color": "#d62728"}}  # fmt: skip
    line = {
        "source-ref": "a.png",
        "x-metadata": {"class-name": "anomaly", "type": "groundtruth/image-classification"},
        "m-ref": "mask.png",
        "m-ref-metadata": {"internal-color-map": colours, "type": "groundtruth/semantic-segmentation"},
    }
    gone = {**line, "source-ref": "gone.png"}
    (tmp_path / "m.manifest").write_text(f"{json.dumps(line)}\n{json.dumps(gone)}\n")
    outcome = say_all(labeller, read_manifest(tmp_path / "m.manifest"), None, is_alone=False)
    ((_, said),) = outcome.labels
    assert (said.classes, [mask.name for mask in said.masks]) == (("chip",), ["chip"])
    assert [name for name, _ in outcome.refused] == ["line 2, gone.png"]


def test_a_folder_with_one_verdict_holds_only_that(tmp_path: Path) -> None:
    put(tmp_path / "a/1.jpg")
    put(tmp_path / "a/b/2.jpg")
    wishes = wishes_of(str(tmp_path / "a"), Verdict.NORMAL, [], [])
    assert [said.verdict for _, said in wishes if isinstance(said, Statement)] == [Verdict.NORMAL] * 2
    with pytest.raises(BadRequest, match="put them into a folder `masks`"):
        wishes_of(str(tmp_path / "a"), Verdict.ANOMALY, ["x"], ["m.png"])


def test_an_unknown_frame_is_refused_before_anything_is_published(
    labeller: Labeller, broker: MemoryBroker
) -> None:
    wishes = wishes_of("00000000-0000-0000-0000-000000000007", Verdict.NORMAL, [], [])
    with pytest.raises(Rejected, match=r"00000000-0000-0000-0000-000000000007.*Nobody knows this frame"):
        say_all(labeller, wishes, 1, is_alone=True)
    assert broker.records(LABELS.name) == []


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["label", "-p", "plates"], "Name a picture, a folder or a frame"),
        (["label", "x", "normal", "-p", "plates", "--manifest", "m"], "or a manifest by --manifest"),
        (["label", "-p", "plates", "--manifest", "m", "--type", "t"], "The manifest says verdicts"),
    ],
)
def test_orders_that_make_no_sense_are_refused(home: Path, arguments: list[str], sentence: str) -> None:
    done = runner.invoke(app, arguments)
    assert (done.exit_code, sentence in done.output) == (2, True), done.output


def test_without_a_stack_the_way_to_start_one_is_named(home: Path, tmp_path: Path) -> None:
    done = runner.invoke(app, ["label", put(tmp_path / "a.png"), "normal", "-p", "plates"])
    assert done.exit_code == 1
    assert "`loupe up` starts it" in done.output


def test_labels_shows_what_the_dataset_holds(
    home: Path, tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOUPE_DATABASE_URL", str(engine.url))
    assert "Nothing is labelled yet." in runner.invoke(app, ["labels"]).output
    store = folder_store(tmp_path / "s3")
    image = store.put_image(DATASETS_BUCKET, picture(1))
    entry_id = entry_id_of("plates", frame_id=None, sha256=image.sha256)
    said = Label(entry_id, "plates", AT, image, None, Verdict.ANOMALY, ("dent",))
    Datasets(engine, store).store(said)
    assert "dent 1" in runner.invoke(app, ["labels"]).output
    told = json.loads(runner.invoke(app, ["labels", "--json"]).output)
    assert told == {"plates": {"verdicts": {"anomaly": 1}, "types": {"dent": 1}, "masks": 0}}
    assert "Nothing of caps is labelled." in runner.invoke(app, ["labels", "-p", "caps"]).output


def test_the_author_is_who_is_logged_in() -> None:
    assert login_name()


@pytest.fixture
def bench(engine: Engine, broker: MemoryBroker) -> Bench:
    return bench_of(engine, broker, MemoryCache(), FakeClock(AT))


def label_frame(bench: Bench, store: ObjectStore, frame_id: UUID) -> Label:
    """Do what `loupe label FRAME_ID anomaly` does, with the servers in memory."""
    finder = PixelFinder(bench.engine, store, lambda: MemoryTopicReader(bench.broker))
    labeller = Labeller(
        "plates", "ada", store=store, producer=MemoryProducer(bench.broker),
        frame_image=lambda frame_id: image_of(frame_id, finder, store), now=lambda: AT,
    )  # fmt: skip
    ((_, said),) = say_all(
        labeller, wishes_of(str(frame_id), Verdict.ANOMALY, [], []), 1, is_alone=True
    ).labels
    return said


def test_a_frame_whose_pixels_were_not_kept_is_labelled_while_kafka_has_it(
    bench: Bench, tmp_path: Path
) -> None:
    seen, store = publish_bare(bench.broker, "foreign", picture(1)), folder_store(tmp_path / "s3")
    bench.pipeline.inspections(verdict_records(verdict(seen)))
    said = label_frame(bench, store, seen.frame_id)
    assert said.frame_id == seen.frame_id
    assert said.image is not None
    assert store.get_image(said.image) == picture(1)
    # The trainer takes it, though no verdict names any pixels.
    assert Datasets(bench.engine, store).store(said)


def test_a_frame_in_a_dead_letter_is_labelled(bench: Bench, tmp_path: Path) -> None:
    seen, store = publish_bare(bench.broker, "foreign", picture(1)), folder_store(tmp_path / "s3")
    bench.broker.append(letter(seen))
    bench.pipeline.dead_letters(bench.broker.records(FRAMES_DLQ.name))
    said = label_frame(bench, store, seen.frame_id)
    assert said.image is not None
    assert store.get_image(said.image) == picture(1)


def test_a_frame_whose_pixels_are_gone_is_refused_with_why(bench: Bench, tmp_path: Path) -> None:
    seen, store = publish_bare(bench.broker, "foreign", picture(1)), folder_store(tmp_path / "s3")
    bench.pipeline.inspections(verdict_records(verdict(seen)))
    bench.broker.log(Partition(FRAMES.name, seen.position.partition if seen.position else 0)).clear()
    with pytest.raises(Rejected, match=r"keeps no pixels.*no longer in Kafka.*Send the image with the label"):
        label_frame(bench, store, seen.frame_id)
    assert bench.broker.records(LABELS.name) == []


def test_all_pictures_of_a_command_are_set_aside_alike() -> None:
    refused = BadRequest("No picture.")
    wishes: list[Wish] = [("a", Statement("a.png", Verdict.NORMAL)), ("b", refused)]
    (_, first), (_, second) = set_aside(Split.TEST, wishes)
    assert first == Statement("a.png", Verdict.NORMAL, split=Split.TEST)
    assert second is refused
