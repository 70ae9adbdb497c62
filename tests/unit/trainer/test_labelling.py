"""Saying what pictures show: pixels first, then the label; and what cannot be said."""

from __future__ import annotations

from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from uuid import UUID

import pytest
from PIL import Image

from services.adapters.broker.memory import MemoryBroker, MemoryProducer
from services.adapters.object_store.store import FRAMES_BUCKET, ObjectStore, folder_store
from services.domain.errors import BadRequest, UnknownObject, UnreadableImage
from services.domain.frame import ImageReference
from services.domain.label import Label, Origin, Split, Verdict, entry_id_of
from services.domain.topics import LABELS
from services.trainer.labelling import Labeller, MaskFile, Statement
from services.wire.label import decode_label
from tests.unit.trainer.pictures import picture

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
FRAME = UUID(int=7)


class Desk:
    """A labeller with everything around it in memory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store: ObjectStore = folder_store(folder / "s3")
        self.broker = MemoryBroker()
        self.frames: dict[UUID, ImageReference] = {}
        self.labeller = Labeller(
            "plates", "ada",
            store=self.store, producer=MemoryProducer(self.broker),
            frame_image=self.frames.__getitem__, now=lambda: AT,
        )  # fmt: skip

    def put(self, name: str, data: bytes) -> str:
        (self.folder / name).write_bytes(data)
        return str(self.folder / name)

    def published(self) -> list[Label]:
        return [decode_label(record) for record in self.broker.records(LABELS.name)]


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def mask(size_px: tuple[int, int] = (160, 160)) -> bytes:
    image = Image.new("L", size_px)
    image.paste(255, (10, 10, 20, 20))
    file = BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def test_a_file_is_stored_before_its_label_is_published(desk: Desk) -> None:
    data = picture(1)
    said = desk.labeller.say(Statement(desk.put("a.png", data), Verdict.NORMAL))
    desk.labeller.wait()
    assert desk.published() == [said]
    assert said.image is not None
    assert desk.store.get_image(said.image) == data
    assert (said.author, said.labelled_at, said.verdict) == ("ada", AT, Verdict.NORMAL)


def test_a_picture_may_be_set_aside_for_the_test(desk: Desk) -> None:
    desk.labeller.say(Statement(desk.put("a.png", picture(1)), Verdict.NORMAL, split=Split.TEST))
    desk.labeller.wait()
    assert [one.split for one in desk.published()] == [Split.TEST]


def test_the_same_file_twice_is_one_entry(desk: Desk) -> None:
    entries = {
        desk.labeller.say(Statement(desk.put(name, picture(1)), Verdict.NORMAL)).entry_id
        for name in ("a.png", "copy.png")
    }
    assert len(entries) == 1


def test_a_frame_is_labelled_with_pixels_of_our_own(desk: Desk) -> None:
    desk.frames[FRAME] = desk.store.put_image(FRAMES_BUCKET, picture(1))
    said = desk.labeller.say(Statement(FRAME, Verdict.ANOMALY))
    assert (said.frame_id, said.entry_id) == (FRAME, entry_id_of("plates", frame_id=FRAME, sha256=None))
    assert said.image is not None
    assert said.image.uri.startswith("s3://loupe-datasets/")


def test_masks_name_their_types(desk: Desk) -> None:
    drawn = MaskFile("scratch", desk.put("m.png", mask()))
    said = desk.labeller.say(
        Statement(desk.put("a.png", picture(1)), Verdict.ANOMALY, ("deep", "scratch"), (drawn,))
    )
    assert said.classes == ("deep", "scratch")
    (kept,) = said.masks
    assert kept.name == "scratch"
    assert Image.open(BytesIO(desk.store.get_image(kept.image))).size == (160, 160)


@pytest.mark.parametrize(
    ("said", "error", "sentence"),
    [
        (Statement("nothing.png", Verdict.NORMAL), BadRequest, "nothing.png cannot be read: No such file"),
        (Statement("a.png", Verdict.NORMAL, ("dent",)), BadRequest, "no anomaly types"),
        (Statement("text.png", Verdict.NORMAL), UnreadableImage, "not an image"),
        (Statement("s3://loupe-frames/x", Verdict.NORMAL), UnknownObject, "does not exist"),
        (
            Statement("a.png", Verdict.ANOMALY, (), (MaskFile("dent", "small.png"),)),
            BadRequest,
            "The mask has 16 x 16 pixels, the picture 160 x 160",
        ),
    ],
)
def test_what_cannot_be_said_publishes_and_stores_nothing(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, said: Statement, error: type[Exception], sentence: str
) -> None:
    desk.put("a.png", picture(1))
    desk.put("text.png", b"text")
    desk.put("small.png", mask((16, 16)))
    monkeypatch.chdir(desk.folder)
    with pytest.raises(error, match=sentence):
        desk.labeller.say(said)
    assert desk.published() == []
    assert desk.store.list("s3://loupe-datasets") == ()


def test_what_corrects_a_verdict_says_so(desk: Desk) -> None:
    reviewer = Labeller(
        "plates", "ada", store=desk.store, producer=MemoryProducer(desk.broker),
        frame_image=desk.frames.__getitem__, now=lambda: AT, origin=Origin.REVIEW,
    )  # fmt: skip
    said = Statement(desk.put("a.png", picture(7)), Verdict.NORMAL)
    reviewer.say(said)
    desk.labeller.say(said)
    assert [label.origin for label in desk.published()] == [Origin.REVIEW, Origin.LABEL]


def test_a_project_needs_a_name_that_can_be_one(desk: Desk) -> None:
    with pytest.raises(BadRequest, match="cannot be a project's name"):
        Labeller(
            "../x", "ada", store=desk.store, producer=MemoryProducer(desk.broker),
            frame_image=desk.frames.__getitem__, now=lambda: AT,
        )  # fmt: skip
