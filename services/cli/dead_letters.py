"""Finding dead letters for `loupe dlq`: by topic, cause, camera, time, place or frame. Reads only."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING

from services.adapters.broker.reader import TopicReader, read_up_to
from services.domain.errors import BadRequest, MalformedRecord
from services.domain.topics import DEAD_LETTERS
from services.wire.dead_letter import DeadLetter, decode_dead_letter

if TYPE_CHECKING:
    from sqlalchemy import Engine

_SUFFIX = ".dlq"
_FRAMES_AT_ONCE = 500

# What a person can do, by the name of the error.
HINTS = {
    "UnreadableImage": "Open the saved bytes with an image viewer; mend what the camera or producer sends.",
    "ImageTooLarge": "Send it smaller, or by reference (`dataref`); the reason names the limit.",
    "MalformedRecord": "The producer does not keep to the wire contract; the reason says where.",
    "HashMismatch": "The object was changed after it was referred to; upload it again and publish again.",
    "UnknownObject": "The object that the record refers to is gone; upload it, then `loupe dlq redrive`.",
    "FrameCrashesModel": "Keep the saved image as a test case and report it with the model's version.",
    "UnknownProject": "Fit the project, or `loupe dlq redrive --project` to one that there is.",
    "NotEnoughImages": "Label more images of good parts, then ask for the training again.",
    "BadRequest": "Correct the request as the reason says, then publish it again.",
    "Cancelled": "A person called it off; ask again with `loupe train PROJECT` if it is wanted after all.",
}
NO_HINT = "See the log of the process that reads the topic: `loupe logs PART`."


@dataclass(frozen=True, slots=True)
class Found:
    """A dead letter, where it stands (`topic:partition:offset`), and the size of the original.

    Attributes:
        is_judged: the frame was judged since; None where that was not looked up.
    """

    place: str
    letter: DeadLetter
    size_bytes: int
    is_judged: bool | None = None

    def without_bytes(self) -> Found:
        """Return it without the original's bytes, so that a list of thousands fits into memory."""
        bare = replace(self.letter.original, value=b"")
        return replace(self, letter=replace(self.letter, original=bare))


@dataclass(frozen=True, slots=True)
class Filters:
    """Which letters are asked for; None: all.

    Attributes:
        topic: with or without `.dlq`.
        since: letters written since then.
    """

    cause: str | None = None
    topic: str | None = None
    camera: str | None = None
    since: datetime | None = None

    def take(self, letter: DeadLetter) -> bool:
        """Tell whether a letter is asked for; its topic and time were seen to when it was read."""
        return self.cause in (None, letter.cause) and self.camera in (None, letter.camera)


def letters(reader: TopicReader, filters: Filters | None = None) -> Iterator[Found]:
    """Yield the dead letters that Kafka keeps, as they stand there.

    Raises:
        BadRequest: the topic has no dead letters.
        BrokerUnavailable: no answer.
    """
    asked = filters or Filters()
    for name in _topics(asked.topic):
        spans = reader.spans(name)
        if asked.since:
            starts = reader.offsets_at(name, asked.since)
            spans = {n: range(max(starts.get(n, 0), span.start), span.stop) for n, span in spans.items()}
        for record in read_up_to(reader, name, spans):
            try:
                letter = decode_dead_letter(record)
            except MalformedRecord:
                continue  # somebody else's record: the topic is open
            if asked.take(letter):
                yield Found(f"{name}:{record.partition}:{record.offset}", letter, len(record.value))


def find(reader: TopicReader, which: str) -> Found:
    """Return the dead letter at a position, or the last of a frame.

    Raises:
        BadRequest: there is none.
    """
    match which.split(":"):
        case [topic, partition, offset] if partition.isdigit() and offset.isdigit():
            name = _topics(topic)[0]
            if int(partition) in reader.spans(name):
                for record in reader.records_at(name, int(partition), [int(offset)]):
                    return Found(which, decode_dead_letter(record), len(record.value))
        case _:
            of_frame = [one for one in letters(reader) if one.letter.frame_id == which]
            if of_frame:
                return of_frame[-1]
    raise BadRequest(f"There is no dead letter {which}; `loupe dlq list` names all.")


def with_verdicts(engine: Engine | None, found: Iterable[Found]) -> Iterator[Found]:
    """Yield the letters, those of frames with whether they were judged since.

    Raises:
        DatabaseUnavailable: no answer.
    """
    if engine is None:
        yield from found
        return
    from sqlalchemy import select

    from services.adapters.database import reading
    from services.adapters.database.tables import inspections
    from services.results.sequences import IS_END

    remaining = iter(found)
    while chunk := list(islice(remaining, _FRAMES_AT_ONCE)):
        ids = [one.letter.frame_id for one in chunk if one.letter.frame_id]
        query = select(inspections.c.frame_id).where(inspections.c.frame_id.in_(ids), IS_END)
        with reading(engine) as connection:
            judged = set(connection.execute(query).scalars())
        for one in chunk:
            yield replace(one, is_judged=one.letter.frame_id in judged) if one.letter.frame_id else one


def _topics(topic: str | None) -> list[str]:
    known = [one.name for one in DEAD_LETTERS]
    if topic is None:
        return known
    name = topic if topic.endswith(_SUFFIX) else topic + _SUFFIX
    if name not in known:
        raise BadRequest(f"The topic {topic} has no dead letters; there are {', '.join(known)}.")
    return [name]
