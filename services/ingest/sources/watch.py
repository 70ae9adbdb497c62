"""New files of a folder, once they are written (arrow 1).

A file counts as written when size and time of change stood still for `SETTLE_S`; a writer that
pauses longer is taken at its word, and its half image is quarantined later. Renaming a finished
file into the folder is always safe.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from threading import Event

from watchfiles import Change, watch

SETTLE_S = 0.5
# How often a file that is being written is looked at; also how soon `stop` is noticed.
_LOOK_MS = 200


def settled_files(folder: Path, stop: Event) -> Iterator[Path | None]:
    """Yield files that appear or change from now on, and None about five times a second meanwhile."""
    growing: dict[Path, tuple[tuple[int, int], float]] = {}
    # Without yield_on_timeout nobody would look at a file again once its writer is silent.
    for changes in watch(
        folder,
        watch_filter=None,
        debounce=_LOOK_MS,
        step=50,
        stop_event=stop,
        rust_timeout=_LOOK_MS,
        yield_on_timeout=True,
        raise_interrupt=False,
        recursive=False,
    ):
        for change, name in changes:
            if change is not Change.deleted:
                growing.setdefault(Path(name), ((-1, -1), 0.0))
        yield from _take_settled(growing)
        yield None


def _take_settled(growing: dict[Path, tuple[tuple[int, int], float]]) -> Iterator[Path]:
    """Yield and forget files whose state is as old as `SETTLE_S`; forget those that are gone."""
    now_s = time.monotonic()
    for file in sorted(growing):
        state = _state_of(file)
        known, since_s = growing[file]
        if state is None:
            del growing[file]
        elif state != known:
            growing[file] = (state, now_s)
        elif now_s - since_s >= SETTLE_S:
            del growing[file]
            yield file


def _state_of(file: Path) -> tuple[int, int] | None:
    """Return size and time of change, None when there is no such file."""
    try:
        found = file.stat()
    except OSError:
        return None
    return (found.st_size, found.st_mtime_ns) if file.is_file() else None
