"""`loupe label` and `loupe labels`: say what pictures show, and see what has been said (arrow 5).

Parses, calls `services.trainer`, shows how far it is. The trainer stores what is published here.
"""

from __future__ import annotations

import json
import os
import pwd
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from services.cli.layout import Column, Room, open_console, print_list
from services.cli.settings import database_address, kafka_address, object_store
from services.domain.errors import BadRequest, Rejected
from services.domain.frame import IMAGE_SUFFIXES, ImageReference
from services.domain.label import Label, Origin, Split, Verdict

if TYPE_CHECKING:
    from services.adapters.object_store import ObjectStore
    from services.results.pixels import PixelFinder
    from services.trainer.datasets import LabelCounts
    from services.trainer.labelling import Labeller, MaskFile, Statement

console = open_console()
errors = open_console(stderr=True)
# A picture and what is said of it, or why nothing is.
Wish = tuple[str, "Statement | Rejected"]
# Refused pictures that are named; all of them are in the JSON.
_SHOWN_REFUSED = 20


@dataclass(slots=True)
class Outcome:
    """What became of the pictures named."""

    labels: list[tuple[str, Label]] = field(default_factory=list)
    refused: list[tuple[str, Rejected]] = field(default_factory=list)

    def count(self, verdict: Verdict) -> int:
        """Return how many pictures have it."""
        return sum(label.verdict is verdict for _, label in self.labels)

    @property
    def masks(self) -> int:
        """How many masks came with them."""
        return sum(len(label.masks) for _, label in self.labels)


Types = Annotated[
    list[str] | None,
    typer.Option("--type", metavar="NAME[=#RRGGBB]", help="Anomaly type, and its colour in the mask."),
]
Masks = Annotated[
    list[str] | None,
    typer.Option("--mask", metavar="FILE", help="Where it is: white pixels, same size; one per --type."),
]


def label(
    project: Annotated[str, typer.Option("--project", "-p", help="Whose dataset; made if new.")],
    what: Annotated[
        str | None,
        typer.Argument(metavar="IMAGE|DIR|FRAME_ID", help="A file, folder, s3:// address, or a frame's id."),
    ] = None,
    verdict: Annotated[
        Verdict | None,
        typer.Argument(help="May be left out for a folder with folders `normal` and `anomaly` in it."),
    ] = None,
    types: Types = None,
    masks: Masks = None,
    manifest: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="JSON lines as SageMaker and Lookout for Vision write them."),
    ] = None,
    split: Annotated[
        Split | None, typer.Option(help="What they are for; a training splits them itself if not given.")
    ] = None,
    review: Annotated[
        bool, typer.Option("--review", help="It corrects a verdict: the model learns it within seconds.")
    ] = False,
    author: Annotated[str | None, typer.Option(help="Who says so; your login name if not given.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object.")] = False,
) -> None:
    """Say what pictures show: normal, or an anomaly of which type and where.

    The pixels are kept with the label; those of a frame are found wherever `loupe image` finds them. Saying
    it twice changes nothing; a later label replaces an earlier one. A folder may have folders `normal`,
    `anomaly` and `masks` (same file names, or a folder per type) in it.

    For example:

    - `loupe label bad.jpg anomaly -p caps --type scratch --mask scratch.png`
    - `loupe label photos/ -p caps`
    - `loupe label 0b5d… normal -p caps --review`
    """
    # Half a second of libraries that `loupe label --help` does not need.
    from services.trainer.label_manifest import read_manifest

    if (what is None) == (manifest is None):
        raise BadRequest("Name a picture, a folder or a frame; or a manifest by --manifest.")
    if manifest is not None:
        if verdict or types or masks:
            raise BadRequest("The manifest says verdicts, types and masks; leave them out.")
        wishes: Iterable[Wish] = read_manifest(manifest)
        total = None
    else:
        assert what is not None
        found = wishes_of(what, verdict, types or [], masks or [])
        wishes, total = found, len(found)
    origin = Origin.REVIEW if review else Origin.LABEL
    with _labeller(project, author or login_name(), origin) as labeller:
        outcome = say_all(labeller, set_aside(split, wishes), total, is_alone=total == 1)
    if as_json:
        typer.echo(json.dumps(as_json_of(project, outcome), indent=1))
    else:
        _show(project, outcome)
    if outcome.refused:
        raise typer.Exit(1)


def labels(
    project: Annotated[str | None, typer.Option("--project", "-p", help="Only this project.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object.")] = False,
) -> None:
    """Show how many labelled images each project's dataset holds, by verdict and anomaly type.

    Example: `loupe labels --project caps`
    """
    from services.adapters.database import open_engine
    from services.trainer.datasets import count_labels

    engine = open_engine(database_address())
    try:
        counts = count_labels(engine, project)
    finally:
        engine.dispose()
    if as_json:
        typer.echo(json.dumps({one.project: _counts_as_json(one) for one in counts}, indent=1))
    elif counts:
        _show_counts(counts)
    else:
        console.print("Nothing is labelled yet." if project is None else f"Nothing of {project} is labelled.")


def wishes_of(what: str, verdict: Verdict | None, types: list[str], masks: list[str]) -> list[Wish]:
    """Return what is said of each picture that `what` names.

    Raises:
        BadRequest: it names nothing, or the options do not go together; the sentence says which.
    """
    from services.trainer.labelling import Statement

    path = Path(what)
    if path.is_dir():
        if masks:
            raise BadRequest(
                "--mask goes with one picture; for a folder put them into a folder `masks` in it."
            )
        return _folder_wishes(path, verdict, types)
    if verdict is None:
        raise BadRequest(f"Say what {what} shows: normal or anomaly.")
    drawn = _paired(types, masks)
    names = tuple(one.partition("=")[0] for one in types)
    if what.startswith("s3://") or path.exists():
        return [(what, Statement(what, verdict, names, drawn))]
    frame_id = _frame_id_of(what)
    return [(what, Statement(frame_id, verdict, names, drawn))]


def set_aside(split: Split | None, wishes: Iterable[Wish]) -> Iterator[Wish]:
    """Yield what is said, with what the pictures are for if that is given."""
    for name, wish in wishes:
        yield name, wish if isinstance(wish, Rejected) else replace(wish, split=split or wish.split)


def say_all(labeller: Labeller, wishes: Iterable[Wish], total: int | None, *, is_alone: bool) -> Outcome:
    """Publish all that can be said, and return when Kafka has acknowledged it.

    Raises:
        Rejected: the only picture was refused.
        RetryLater: Kafka, the object store or the database does not answer.
    """
    outcome = Outcome()
    columns = (TextColumn("labelling"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(
        *columns, console=errors, transient=True, disable=is_alone or not errors.is_terminal
    ) as bars:
        task = bars.add_task("", total=total)
        for name, wish in wishes:
            try:
                if isinstance(wish, Rejected):
                    raise wish
                outcome.labels.append((name, labeller.say(wish)))
            except Rejected as error:
                if is_alone:
                    raise
                outcome.refused.append((name, error))
            bars.advance(task)
        labeller.wait()
    return outcome


def as_json_of(project: str, outcome: Outcome) -> dict[str, object]:
    """Return what `--json` prints."""
    return {
        "project": project,
        "normal": outcome.count(Verdict.NORMAL),
        "anomaly": outcome.count(Verdict.ANOMALY),
        "masks": outcome.masks,
        "labels": [
            {
                "name": name,
                "entry_id": str(one.entry_id),
                "frame_id": str(one.frame_id) if one.frame_id else None,
                "verdict": one.verdict,
                "classes": one.classes,
                "split": one.split,
                "image_uri": one.image.uri if one.image else None,
                "author": one.author,
                "labelled_at": one.labelled_at.isoformat(),
            }
            for name, one in outcome.labels
        ],
        "refused": [
            {"name": name, "cause": error.cause, "reason": error.message} for name, error in outcome.refused
        ],
    }


def login_name() -> str:
    """Return who runs this process."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container's user need not be in any list
        return f"uid-{os.getuid()}"


def _folder_wishes(folder: Path, verdict: Verdict | None, types: list[str]) -> list[Wish]:
    from services.trainer.folders import read_labelled_folder
    from services.trainer.labelling import MaskFile, Statement

    if verdict is not None:
        files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file())
        if not files:
            raise BadRequest(f"{folder} holds no images ({', '.join(sorted(IMAGE_SUFFIXES))}).")
        return [(str(path), Statement(str(path), verdict, tuple(types))) for path in files]
    if types:
        raise BadRequest(
            "--type goes with a verdict; for types in a folder make a folder per type in `masks`."
        )
    wishes: list[Wish] = []
    for image in read_labelled_folder(folder):
        if image.fault:
            wishes.append((image.name, BadRequest(image.fault)))
            continue
        drawn = tuple(MaskFile(name, str(path)) for name, path in image.masks.items())
        said = Statement(str(image.source), image.label, image.types, drawn, split=image.split)
        wishes.append((image.name, said))
    return wishes


def _paired(types: list[str], masks: list[str]) -> tuple[MaskFile, ...]:
    """Return each mask with its type, in the order given; a mask without a type is of type `anomaly`."""
    from services.trainer.labelling import MaskFile
    from services.vision.masks import checked_colour

    pairs = [one.partition("=") for one in types]
    coloured = [(name, checked_colour(colour)) for name, sign, colour in pairs if sign]
    if coloured:
        if len(masks) != 1 or len(coloured) != len(types):
            raise BadRequest("Types with colours need one --mask, and a colour for each type.")
        return tuple(MaskFile(name, masks[0], colour) for name, colour in coloured)
    names = [name for name, _, _ in pairs]
    if len(masks) == 1 and not names:
        names = ["anomaly"]
    if masks and len(masks) != len(names):
        raise BadRequest(f"{len(names)} types and {len(masks)} masks: each --mask needs its --type.")
    return tuple(MaskFile(name, mask) for name, mask in zip(names, masks, strict=False))


def _frame_id_of(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise BadRequest(f"{text} is neither a file, a folder nor a frame's id.") from None


@contextmanager
def _labeller(project: str, author: str, origin: Origin) -> Iterator[Labeller]:
    """Give a labeller on the stack, or on what the environment names."""
    from datetime import UTC, datetime

    from services.adapters.broker.kafka import KafkaBrokerProducer
    from services.trainer.labelling import Labeller

    producer = KafkaBrokerProducer(kafka_address())
    store = object_store()
    try:
        yield Labeller(
            project,
            author,
            store=store,
            producer=producer,
            frame_image=partial(_frame_image, store=store),
            now=lambda: datetime.now(UTC),
            origin=origin,
        )
    finally:
        producer.close()


def _frame_image(frame_id: UUID, *, store: ObjectStore) -> ImageReference:
    """Look a frame up; files need no database."""
    from services.adapters.broker.reader import KafkaTopicReader
    from services.adapters.database import open_engine
    from services.results.pixels import PixelFinder

    engine = open_engine(database_address())
    try:
        finder = PixelFinder(engine, store, lambda: KafkaTopicReader(kafka_address()))
        return image_of(frame_id, finder, store)
    finally:
        engine.dispose()


def image_of(frame_id: UUID, finder: PixelFinder, store: ObjectStore) -> ImageReference:
    """Return a frame's pixels as an image of the datasets, copied from wherever they are: Kafka forgets.

    Raises:
        Rejected: they are gone; the sentence says why.
        RetryLater: database or object store do not answer.
    """
    from services.adapters.object_store.store import DATASETS_BUCKET

    found = finder.find(frame_id)
    if found.image is None:
        why = " ".join(found.notes)
        raise Rejected(f"Frame {frame_id} has no pixels to label. {why} Send the image with the label.")
    return store.put_image(DATASETS_BUCKET, found.image)


def _show(project: str, outcome: Outcome) -> None:
    for name, error in outcome.refused[:_SHOWN_REFUSED]:
        errors.print(Text.assemble((name, "bold"), ": ", error.message))
    if len(outcome.refused) > _SHOWN_REFUSED:
        errors.print(f"and {len(outcome.refused) - _SHOWN_REFUSED} more refused: --json has all")
    normal, anomaly = outcome.count(Verdict.NORMAL), outcome.count(Verdict.ANOMALY)
    parts = [f"{normal} normal", f"{anomaly} anomaly", f"{outcome.masks} masks"]
    if outcome.refused:
        parts.append(f"{len(outcome.refused)} refused")
    console.print(f"[green]{project}[/]: {', '.join(parts)}.")


def _counts_as_json(one: LabelCounts) -> dict[str, object]:
    return {"verdicts": dict(one.verdicts), "types": dict(one.types), "masks": one.masks}


def _show_counts(counts: Iterable[LabelCounts]) -> None:
    columns = (
        Column("project"),
        *(Column(name, is_right=True) for name in ("normal", "anomaly", "masks")),
        Column("images per anomaly type", room=Room.BELOW),
    )
    rows = []
    for one in counts:
        types = ", ".join(f"{name} {count}" for name, count in sorted(one.types.items()))
        numbers = (one.verdicts[Verdict.NORMAL.value], one.verdicts[Verdict.ANOMALY.value], one.masks)
        rows.append((one.project, *map(str, numbers), types))
    print_list(console, columns, rows)
