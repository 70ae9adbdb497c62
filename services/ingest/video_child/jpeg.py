"""Pictures as JPEG: a camera's own where it sends whole ones, else encoded (arrow 1).

Measured on 1080p pictures, CPU per picture, one thread: YUV to RGBX to JPEG by Pillow (libjpeg-turbo)
6 ms at quality 90; FFmpeg's own MJPEG encoder from YUV 10 ms at about the same size, and with the
colours of BT.601 whatever the film says.
"""

from __future__ import annotations

import io
from typing import Any

from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from PIL import Image

# Nearly invisible, and half the bytes of 95.
QUALITY = 90
_SOI, _EOI = b"\xff\xd8", b"\xff\xd9"
_SOS, _DHT, _DQT = 0xDA, 0xC4, 0xDB


class JpegEncoder:
    """Encodes the frames of one film; used by one thread."""

    def __init__(self) -> None:
        self._reformatter = VideoReformatter()

    def encode(self, frame: VideoFrame) -> bytes:
        """Return a frame of any pixel format as JPEG, 4:2:0.

        Raises:
            ValueError: JPEG cannot hold it.
        """
        # RGBX is how Pillow keeps pixels itself: no copy. But FFmpeg 8 (libswscale 9.5) writes wrong
        # pixels at the right edge of it where the width is 1 to 4 above a multiple of 16.
        name, mode = ("rgb0", "RGBX") if frame.width % 8 == 0 else ("rgb24", "RGB")
        # One thread: with more, swscale takes several times the CPU, and for some formats now and then
        # writes wrong pixels where its slices meet (to 10 bits: 116 pictures of 3,000).
        # The range is named because "unspecified" would stretch pictures that use all of it.
        rgb = self._reformatter.reformat(frame, format=name, src_color_range=frame.color_range, threads=1)
        size, plane = (rgb.width, rgb.height), rgb.planes[0]
        raw: Any = plane  # any buffer will do; Pillow's types know only bytes
        image = Image.frombuffer(mode, size, raw, "raw", mode, plane.line_size, 1)
        out = io.BytesIO()
        try:
            image.save(out, "JPEG", quality=QUALITY, subsampling="4:2:0")
        except OSError as error:
            raise ValueError(f"no JPEG of {rgb.width} x {rgb.height} px") from error
        return out.getvalue()


def whole_jpeg(packet: bytes) -> bytes | None:
    """Return a packet of an MJPEG stream if any reader of JPEG can decode it, without padding; else None.

    Some cameras leave out the Huffman tables, as AVI allows, or cut pictures short.
    """
    end = len(packet.rstrip(b"\0"))
    if packet[:2] != _SOI or packet[end - 2 : end] != _EOI:
        return None
    seen, at = set(), 2
    while at + 4 <= end and packet[at] == 0xFF:
        marker = packet[at + 1]
        seen.add(marker)
        if marker == _SOS:
            return packet[:end] if {_DHT, _DQT} <= seen else None
        at += 2 + int.from_bytes(packet[at + 2 : at + 4], "big")
    return None
