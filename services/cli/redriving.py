"""Publishing dead letters again, for `loupe dlq redrive`: same frame, same id, same or another model.

A record that was acknowledged may be published once more by the next run, when this one was interrupted:
its verdict is then known, and counts once.
"""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from itertools import islice

from services.adapters.broker.protocol import Delivery, Producer
from services.adapters.broker.reader import TopicReader
from services.cli.dead_letters import Found
from services.domain.errors import ImageTooLarge
from services.domain.topics import FRAMES
from services.wire.dead_letter import DeadLetter, decode_dead_letter
from services.wire.frame import decode_frame
from services.wire.redrive import encode_redrive

# Records that wait for their acknowledgement; images of 10 MiB then need 160 MiB of the producer's buffer.
_IN_FLIGHT = 16
_ACKNOWLEDGED_WITHIN_S = 40.0


@dataclass(frozen=True, slots=True)
class Redriven:
    """A letter that was published again; `project` is asked to judge it, None lets routes decide."""

    position: str
    frame_id: str
    project: str | None


@dataclass
class Outcome:
    """What became of the letters.

    Attributes:
        letters: published again and acknowledged; on a dry run, what would be published.
        judged: left out, because their frames have a verdict.
        repeats: left out, because a later letter of the same frame is among them.
        lost: their bytes were too large for a letter, and the original is no longer kept.
        too_large: the broker does not take them.
    """

    letters: list[Redriven] = field(default_factory=list)
    judged: int = 0
    repeats: int = 0
    lost: list[str] = field(default_factory=list)
    too_large: list[str] = field(default_factory=list)

    @property
    def redriven(self) -> int:
        """How many were published again."""
        return len(self.letters)


@dataclass(frozen=True, slots=True)
class Redriver:
    """Publishes letters again.

    Attributes:
        reader: finds originals whose bytes are not in their letters.
        producer: None: nothing is published, only counted.
        project: judge by this project's model.
        again: also frames that have a verdict.
        rate_fps: records per second at most; 0: as fast as the broker takes them.
        progress: hears how many are published.
    """

    reader: TopicReader
    producer: Producer | None
    project: str | None = None
    again: bool = False
    rate_fps: float = 0.0
    progress: Callable[[int], None] | None = None
    clock_s: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep

    def redrive(self, letters: Iterable[Found], outcome: Outcome, *, limit: int | None = None) -> None:
        """Publish letters again, oldest first per partition, and wait for every acknowledgement.

        Args:
            letters: their bytes are not needed.
            outcome: is counted up as it goes, so that it is right when this is interrupted.
            limit: so many at most.

        Raises:
            BrokerUnavailable: not all were acknowledged; run it again.
        """
        waiting: deque[tuple[Delivery, Redriven]] = deque()
        started_s, sent = self.clock_s(), 0
        for place, letter in self._whole_letters(self._chosen(letters, outcome)[:limit], outcome):
            told = Redriven(place, letter.frame_id, self._project_of(letter))
            if self.producer is None:
                outcome.letters.append(told)
                continue
            try:
                waiting.append((self.producer.send(encode_redrive(letter, self.project)), told))
            except ImageTooLarge:
                outcome.too_large.append(place)
                continue
            sent += 1
            while len(waiting) >= _IN_FLIGHT:
                self._acknowledge(waiting, outcome)
            if self.rate_fps:
                self.sleep(max(0.0, started_s + sent / self.rate_fps - self.clock_s()))
        while waiting:
            self._acknowledge(waiting, outcome)

    def _chosen(self, letters: Iterable[Found], outcome: Outcome) -> list[Found]:
        """Return which letters to publish: the last of each frame, if the frame has no verdict."""
        last: dict[str, Found] = {}
        for one in letters:
            key = one.letter.frame_id or one.place
            outcome.repeats += key in last
            last.pop(key, None)
            last[key] = one
        chosen = [one for one in last.values() if self.again or not one.is_judged]
        outcome.judged = len(last) - len(chosen)
        return chosen

    def _whole_letters(self, chosen: Iterable[Found], outcome: Outcome) -> Iterator[tuple[str, DeadLetter]]:
        """Yield place and letter, read with the original's bytes."""
        by_partition: dict[tuple[str, int], list[int]] = defaultdict(list)
        for one in chosen:
            topic, number, offset = one.place.split(":")
            by_partition[topic, int(number)].append(int(offset))
        for (topic, partition), offsets in by_partition.items():
            remaining = iter(sorted(offsets))
            # Some at a time: the reader looks elsewhere for originals in between.
            while some := list(islice(remaining, _IN_FLIGHT)):
                for record in list(self.reader.records_at(topic, partition, some)):
                    place = f"{topic}:{partition}:{record.offset}"
                    letter = self._whole(decode_dead_letter(record))
                    if letter is None:
                        outcome.lost.append(place)
                    else:
                        yield place, letter

    def _project_of(self, letter: DeadLetter) -> str | None:
        if letter.original.topic != FRAMES.name:
            return None
        return self.project or decode_frame(letter.original).project

    def _acknowledge(self, waiting: deque[tuple[Delivery, Redriven]], outcome: Outcome) -> None:
        delivery, told = waiting.popleft()
        delivery.result(_ACKNOWLEDGED_WITHIN_S)
        outcome.letters.append(told)
        if self.progress:
            self.progress(outcome.redriven)

    def _whole(self, letter: DeadLetter) -> DeadLetter | None:
        """Return a letter with its original's bytes, from where that stands if they are not in it."""
        if letter.is_whole and (letter.original.value or letter.original.topic == FRAMES.name):
            return letter
        at = letter.position
        span = self.reader.spans(at.topic).get(at.partition, range(0))
        found = self.reader.records_at(at.topic, at.partition, [at.offset] if at.offset in span else [])
        for record in found:
            # A topic that was made anew has other records at the same offsets.
            is_it = record.key == letter.original.key and record.timestamp_ms == letter.original.timestamp_ms
            if is_it and (not letter.frame_id or str(decode_frame(record).frame_id) == letter.frame_id):
                return replace(letter, original=record)
        return None


def as_json(outcome: Outcome, *, is_dry: bool) -> dict[str, object]:
    """Return what `--json` prints."""
    lost = "bytes are kept nowhere any more"
    failed = [{"position": one, "why": lost} for one in outcome.lost]
    failed += [{"position": one, "why": "too large for the broker"} for one in outcome.too_large]
    return {
        "redriven": outcome.redriven,
        "skipped_judged": outcome.judged,
        "skipped_repeats": outcome.repeats,
        "failed": len(failed),
        "dry_run": is_dry,
        "letters": [asdict(one) for one in outcome.letters],
        "failed_letters": failed,
    }
