"""When the child stops saying that it lives, and what it says of pictures that cannot be encoded."""

from __future__ import annotations

import time

import av

from services.ingest.video_child.__main__ import Alive, message_of
from services.ingest.video_child.job import STUCK_AFTER_S
from services.ingest.video_child.jpeg import JpegEncoder
from services.ingest.video_child.messages import Damaged, End, Picture
from services.ingest.video_child.waiting import Decoded


def test_a_reader_that_no_timeout_brings_back_is_stuck_until_it_moves() -> None:
    assert not Alive().is_stuck
    long_silent = Alive(time.monotonic() - STUCK_AFTER_S - 1)
    before = long_silent.is_stuck
    long_silent.touch()
    assert (before, long_silent.is_stuck) == (True, False)


def test_a_picture_that_jpeg_cannot_hold_is_declared_and_others_are_sent() -> None:
    encoder = JpegEncoder()
    too_wide = Decoded(4, 3, 1.0, 1.0, av.VideoFrame(65_536, 16, "rgb24"))
    assert message_of(too_wide, encoder) == Damaged(4, 3, "no JPEG of 65536 x 16 px")
    assert message_of(Decoded(5, 4, 1.5, 1.0, b"jpeg"), encoder) == Picture(5, 4, 1.5, b"jpeg")
    assert message_of(End(6), encoder) == End(6)
