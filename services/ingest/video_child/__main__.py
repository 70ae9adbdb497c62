"""The process that reads one film or camera: a thread reads, one listens, this one sends (arrow 1)."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from dataclasses import dataclass, field
from io import BufferedReader
from threading import Thread

import av.logging

from services.domain.camera import CameraState
from services.domain.errors import SourceUnavailable
from services.ingest.video_child.job import STUCK_AFTER_S, Job
from services.ingest.video_child.jpeg import JpegEncoder
from services.ingest.video_child.messages import Beat, Damaged, End, Message, Picture, send
from services.ingest.video_child.reading import Reading
from services.ingest.video_child.waiting import Decoded, Waiting

BEAT_EVERY_S = 0.5
_PR_SET_PDEATHSIG = 1


@dataclass
class Alive:
    """When the reader last showed that no call holds it."""

    monotonic_s: float = field(default_factory=time.monotonic)

    def touch(self) -> None:
        """It moves."""
        self.monotonic_s = time.monotonic()

    @property
    def is_stuck(self) -> bool:
        """Whether a driver or a resolver holds it longer than any timeout allows."""
        return time.monotonic() - self.monotonic_s > STUCK_AFTER_S


def main() -> None:
    """Read the job, then pictures, until the film or the parent ends."""
    wishes, pipe = sys.stdin.buffer, _claim_stdout()
    assert isinstance(wishes, BufferedReader)
    job = Job.from_json(wishes.readline())
    _end_with_parent(job.parent_id)
    av.logging.set_level(None)
    alive, waiting = Alive(), Waiting(is_live=job.is_live)
    Thread(target=_listen, args=(wishes, waiting), daemon=True).start()
    Thread(target=_read, args=(job, alive, waiting), daemon=True).start()
    encoder = JpegEncoder()
    while True:
        item = waiting.take(BEAT_EVERY_S)
        if item is not None:
            send(pipe, message_of(item, encoder))
            if isinstance(item, End):
                # Not through the interpreter's end: FFmpeg's threads may still be in native code.
                os._exit(0)
        elif not alive.is_stuck:
            send(pipe, Beat())


def _claim_stdout() -> int:
    """Return a descriptor of the parent's pipe that no library prints to."""
    pipe = os.dup(sys.stdout.fileno())
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return pipe


def _end_with_parent(parent_id: int) -> None:
    """Have the kernel end this process with its parent, even while native code holds it or it is stopped."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_id:
        os._exit(0)


def _listen(wishes: BufferedReader, waiting: Waiting) -> None:
    """Pass on the parent's wishes, a byte each; end the process when it is gone."""
    while piece := wishes.read1(64):
        waiting.wish(len(piece))
    os._exit(0)


def _read(job: Job, alive: Alive, waiting: Waiting) -> None:
    """Read until the end and say why."""
    reading = Reading(job, alive.touch)
    end = End(0)
    try:
        for item in reading.pictures():
            waiting.put(item, alive.touch)
    except SourceUnavailable as error:
        end = End(0, CameraState(error.state), error.message)
    except Exception as error:  # noqa: BLE001 - the parent must hear of it, by name: its text may hold the address
        end = End(0, CameraState.FAILED, f"{job.shown}: reading failed with {type(error).__name__}.")
    waiting.end(End(reading.count, end.state, end.message))


def message_of(item: Decoded | Damaged | End, encoder: JpegEncoder) -> Message:
    """Return what to tell the parent."""
    if not isinstance(item, Decoded):
        return item
    try:
        jpeg = item.pixels if isinstance(item.pixels, bytes) else encoder.encode(item.pixels)
    except ValueError as error:
        return Damaged(item.number, item.position, str(error))
    return Picture(item.number, item.position, item.decoded_s, jpeg)


if __name__ == "__main__":
    main()
