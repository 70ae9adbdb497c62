"""Pixels that labels, review and re-judging will need, kept by the route's policy (arrow 3).

An image is kept under its own hash, so its reference is known before it is stored: the verdict goes out
while the object store writes, and the offset is committed after both. Judges and publishes nothing.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

from serve.judging import FIRST_PAUSE_S, LONGEST_PAUSE_S, End, Item
from services.adapters.object_store import ObjectStore, image_reference
from services.adapters.object_store.store import FRAMES_BUCKET
from services.domain.errors import StoreUnavailable
from services.domain.hosting import ArchivePolicy
from services.domain.inspection import Inspection

logger = logging.getLogger(__name__)

# Of the frames that are not interesting by themselves one in so many is kept, chosen by id, so that a
# redelivery keeps the same ones.
KEEP_ONE_IN = 100
# Equal images (a camera that stands still, a shadow's copy) are put once while this many others come
# between. Asking the store instead costs half a put for every image that is new, and most are (measured with
# 20 to 460 KB on the one-machine S3: 4-7 ms of 9-16 ms). After an hour an image is put again, so that the
# sweeper, which spares what was put of late, sees that it is in use.
_KNOWN_IMAGES = 4096
_KNOWN_FOR_S = 3600.0
# A put waits for the store's disk; four at once keep two cores' worth of a batch of 16 moving.
_PUTS_AT_ONCE = 4


class Keeping:
    """Images of one batch on their way to the object store."""

    def __init__(self, puts: Sequence[Future[None]]) -> None:
        """Wait for `puts`."""
        self._puts = puts

    def wait(self) -> None:
        """Return when all are stored. Blocks, as long as the store is away.

        Raises:
            StoreUnavailable: not all are stored, and there is to be no next try.
        """
        for put in self._puts:
            put.result()


class Archive:
    """Keeps pixels; thread-safe."""

    def __init__(self, store: ObjectStore, pause: Callable[[float], bool]) -> None:
        """Keep in `store`; `pause` waits so many seconds and says whether to try again."""
        self._store, self._pause = store, pause
        self._known = _Known()
        self._pool = ThreadPoolExecutor(_PUTS_AT_ONCE, "archive")

    def begin(self, items: Sequence[Item], ends: Sequence[End]) -> tuple[list[End], Keeping]:
        """Begin to store what is to be kept, and return the ends with references to it."""
        referenced: list[End] = []
        puts = []
        for item, end in zip(items, ends, strict=True):
            if isinstance(end, Inspection) and _is_kept(end, item.route.archive):
                # A claim check's pixels are kept already, by whoever published it.
                reference = item.frame.dataref or image_reference(FRAMES_BUCKET, item.frame.image)
                referenced.append(replace(end, image=reference, retention=item.route.retention.value))
                if item.frame.dataref is None and reference.sha256 not in self._known:
                    puts.append(self._pool.submit(self._put, reference.uri, item.frame.image))
            elif isinstance(end, Inspection) and end.original is not None:
                referenced.append(replace(end, original=None))  # kept no longer than the image
            else:
                referenced.append(end)
        return referenced, Keeping(puts)

    def close(self) -> None:
        """Begin no more."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _put(self, uri: str, image: bytes) -> None:
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                self._store.put(uri, image)
            except StoreUnavailable as error:
                logger.warning("%s Trying again in %.1f s.", error.message, pause_s)
                if not self._pause(pause_s):
                    raise
                pause_s = min(pause_s * 2, LONGEST_PAUSE_S)
            else:
                return self._known.add(uri.rsplit("/", 1)[1])


class _Known:
    """Hashes of images put of late, a bounded number; thread-safe."""

    def __init__(self) -> None:
        self._until_s: OrderedDict[str, float] = OrderedDict()
        self._lock = threading.Lock()

    def __contains__(self, sha256: str) -> bool:
        return self._until_s.get(sha256, 0.0) > time.monotonic()

    def add(self, sha256: str) -> None:
        with self._lock:
            self._until_s[sha256] = time.monotonic() + _KNOWN_FOR_S
            self._until_s.move_to_end(sha256)
            if len(self._until_s) > _KNOWN_IMAGES:
                self._until_s.popitem(last=False)


def _is_kept(inspection: Inspection, policy: ArchivePolicy) -> bool:
    if policy is ArchivePolicy.INTERESTING:
        is_sample = inspection.frame_id.int % KEEP_ONE_IN == 0
        return inspection.is_anomalous or inspection.is_uncertain or is_sample
    return policy is ArchivePolicy.ALL
