"""How much memory a fit is going to take, and how much there is: asked before anything is started.

Kernels end processes that take too much, without a word and sometimes the wrong one. Starts nothing.
"""

from __future__ import annotations

from pathlib import Path

import psutil

from services.domain.errors import CannotFit
from services.domain.model_version import FitOptions

# The rest is for the trainer itself and for whatever shares the machine.
_OFFERED_RATIO = 0.8
_CGROUP = Path("/sys/fs/cgroup")
# As `fit.MOST_NORMALS`, which importing would bring the libraries of a fit into the trainer; a test compares.
MOST_NORMALS = 1000
_MIB = 1 << 20

# Measured 2026-11-21 (Linux, two threads, memory and aligned to choose from, 224 px): a fit peaks at 440 MiB
# with 8 photos, 530 with 60, 918 with 300, and 1005 with 30 photos in 2 x 2 tiles. That is the libraries, the
# backbone's sessions and the graph, which grow with the input, and for each photo its pixels, its cells'
# distances and its share of what is sorted. A fifth is added.
_BASE_BYTES = 560 * _MIB
_TILE_BYTES = 130 * _MIB
_PHOTO_BYTES = 2 * _MIB
# torch, and a network in training: 1209 MiB with 12 photos and the restoration family, without a GPU.
_TORCH_BYTES = 900 * _MIB
_TRAINED = ("restoration",)


def needed_bytes(normals: int, anomalies: int, options: FitOptions) -> int:
    """Return the peak of a fit's resident memory, estimated generously.

    Args:
        normals: photos; beyond `fit.MOST_NORMALS` others are drawn from, not kept.
        anomalies: photos.
        options: families and tiles count.
    """
    photos, tiles = min(normals, MOST_NORMALS) + anomalies, options.tiles**2
    tiled = (tiles - 1) * _TILE_BYTES + tiles * photos * _PHOTO_BYTES
    return _BASE_BYTES + tiled + (_TORCH_BYTES if trains_network(options) else 0)


def trains_network(options: FitOptions) -> bool:
    """Tell whether a fit trains a network, with torch."""
    return options.is_thorough or any(one in _TRAINED for one in options.families)


def check_memory(asked: int, offered: int) -> None:
    """Refuse a fit that would not fit into memory.

    Raises:
        CannotFit: with both numbers.
    """
    if asked > offered:
        message = (
            f"The fit would take about {asked / _MIB:,.0f} MiB of memory; it may take "
            f"{offered / _MIB:,.0f} MiB (LOUPE_FIT_MEMORY_BYTES). Use fewer photos, tiles or families."
        )
        raise CannotFit(message, asked=asked, offered=offered)


def offered_here_bytes() -> int:
    """Return 80 % of what this machine, or the control group of this process, has."""
    limits = [psutil.virtual_memory().total, *_group_limits_bytes(_CGROUP)]
    return int(_OFFERED_RATIO * min(limits))


def _group_limits_bytes(root: Path) -> list[int]:
    """Return the limits that control groups set: this process's, and those above it."""
    found = []
    for place in (_own_group(), *_own_group().parents):
        for name in ("memory.max", "memory/memory.limit_in_bytes"):
            try:
                text = (root / place / name).read_text().strip()
            except OSError:
                continue
            if text.isdigit():  # else "max"
                found.append(int(text))
    return found


def _own_group() -> Path:
    """Return the group of this process, relative to the root of all."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return Path()
    own = [line.rpartition(":")[2] for line in lines if line.startswith("0::")]
    return Path(own[0].lstrip("/")) if own else Path()
