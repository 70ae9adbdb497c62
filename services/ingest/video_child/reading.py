"""Opens a film or camera and decodes its pictures, one after the other (arrow 1). Encodes nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import av
import av.error
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from services.domain.camera import CameraState
from services.domain.errors import SourceUnavailable
from services.ingest.video_child.job import OPEN_TIMEOUT_S, READ_TIMEOUT_S, Job
from services.ingest.video_child.jpeg import whole_jpeg
from services.ingest.video_child.messages import Damaged
from services.ingest.video_child.refusals import refusal_of
from services.ingest.video_child.thinning import Thinning
from services.ingest.video_child.waiting import Decoded

# Two seconds of an ordinary camera without one good picture: the data or the codec is not what it says.
MAX_DAMAGED_IN_A_ROW_FRAMES = 50
_DAMAGED = "the picture is damaged"


class Reading:
    """One run over a film (again and again if it loops) or a camera; used by one thread."""

    def __init__(self, job: Job, on_alive: Callable[[], None]) -> None:
        """Prepare.

        Args:
            job: what to read.
            on_alive: called whenever FFmpeg gave something.
        """
        self._job, self._on_alive = job, on_alive
        self._damaged_in_a_row = 0
        self.count = 0

    def pictures(self) -> Iterator[Decoded | Damaged]:
        """Yield pictures that are wanted, and damaged ones; `count` counts those passed over, too.

        Ends with the film.

        Raises:
            SourceUnavailable: it cannot be read (on).
        """
        while True:
            before = self.count
            with self._open() as container:
                yield from self._pictures_of(container)
            if self._job.is_live:
                raise SourceUnavailable(f"{self._job.shown} ended its stream.", CameraState.UNREACHABLE)
            if self.count == before:
                raise SourceUnavailable(f"{self._job.shown} holds no pictures.", CameraState.UNKNOWN_CODEC)
            if not self._job.loop:
                return

    def _open(self) -> InputContainer:
        job = self._job
        # The reading timeout of a film is a network share's; STUCK_AFTER_S ends what ignores both.
        timeout = (OPEN_TIMEOUT_S, READ_TIMEOUT_S)
        try:
            return av.open(job.url, "r", format=job.format, options=dict(job.options), timeout=timeout)
        except av.error.FFmpegError as error:
            raise refusal_of(error, job, is_open=False) from None

    def _pictures_of(self, container: InputContainer) -> Iterator[Decoded | Damaged]:
        """Yield the pictures of one opening."""
        self._on_alive()
        if not container.streams.video:
            raise SourceUnavailable(
                f"{self._job.shown} has no pictures, only sound or data.", CameraState.UNKNOWN_CODEC
            )
        stream = container.streams.video[0]
        # One thread: the encoder runs beside this one anyway (1080p on two cores: 105 frames/s, and 108
        # with FFmpeg's own choice), and each frame thread would hold a picture back.
        stream.thread_type, stream.codec_context.thread_count = "SLICE", 1
        rate_fps = float(stream.average_rate or stream.guessed_rate or 25)
        thinning = Thinning(self._job.fps, rate_fps, is_live=self._job.is_live)
        first = self.count
        for pixels, time_s in self._decoded(container, stream):
            self._on_alive()
            number, self.count = self.count, self.count + 1
            if pixels is None:
                self._check_damage()
                yield Damaged(number, number - first, _DAMAGED)
                continue
            self._damaged_in_a_row = 0
            if thinning.wants(time_s):
                yield Decoded(number, number - first, time.time(), time.monotonic(), pixels)

    def _check_damage(self) -> None:
        self._damaged_in_a_row += 1
        if self._damaged_in_a_row > MAX_DAMAGED_IN_A_ROW_FRAMES:
            message = f"{self._job.shown}: {self._damaged_in_a_row} pictures in a row cannot be decoded."
            raise SourceUnavailable(message, CameraState.UNKNOWN_CODEC)

    def _decoded(
        self, container: InputContainer, stream: VideoStream
    ) -> Iterator[tuple[VideoFrame | bytes | None, float | None]]:
        """Yield each picture (whole JPEGs as they came, None for a damaged one) with its time in the film."""
        passes_through = stream.codec_context.name == "mjpeg"
        for packet in self._packets(container, stream):
            self._on_alive()
            if packet is None:
                yield None, None
                return
            jpeg = whole_jpeg(bytes(packet)) if passes_through and packet.size else None
            if jpeg is not None:
                yield jpeg, _seconds(packet)
                continue
            try:
                frames = packet.decode()
            except av.error.EOFError:
                return
            except av.error.LookupError as error:
                raise refusal_of(error, self._job, is_open=True) from None
            except av.error.FFmpegError:
                # Decoders and the libraries below them name their troubles in many ways.
                yield None, None
                continue
            for frame in frames:
                yield (None if frame.is_corrupt else frame), frame.time

    def _packets(
        self, container: InputContainer, stream: VideoStream
    ) -> Iterator[Packet[VideoStream] | None]:
        """Yield packets; None last where the rest of a film is damaged."""
        try:
            yield from container.demux(stream)
        except av.error.InvalidDataError as error:
            if self._job.is_live:
                raise refusal_of(error, self._job, is_open=True) from None
            yield None
        except av.error.FFmpegError as error:
            raise refusal_of(error, self._job, is_open=True) from None


def _seconds(packet: Packet[VideoStream]) -> float | None:
    return float(packet.pts * packet.time_base) if packet.pts is not None and packet.time_base else None
