"""Finding and ending what a stack left behind: processes by their mark, shared memory by its name.

Every process of a stack carries `LOUPE_STACK_ID` (and its part's name) in its environment, which
survives a dead supervisor. Only processes with our own mark and user are ever signalled, by pid.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import psutil

STACK_MARK = "LOUPE_STACK_ID"
PART_MARK = "LOUPE_STACK_PART"
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where the kernel puts it


def marked_processes(stack_id: str, part: str | None = None) -> list[psutil.Process]:
    """Return living processes of a stack, or of one part of it, but for this one and its parents."""
    own = psutil.Process()
    spared = {own.pid, *(parent.pid for parent in own.parents())}
    marks = [f"{STACK_MARK}={stack_id}"] + ([f"{PART_MARK}={part}"] if part else [])
    return [one for one in psutil.process_iter() if one.pid not in spared and _carries(one.pid, marks)]


def sweep(stack_id: str, part: str | None = None, *, grace_s: float = 1.0) -> int:
    """End leftover processes: SIGTERM, then SIGKILL after the grace. Returns how many there were.

    Looks again until none is left, since a process may start another while it is being ended.
    """
    ended = 0
    while found := marked_processes(stack_id, part):
        ended += len(found)
        end_processes(found, grace_s=grace_s)
        grace_s = 0.0
    return ended


def end_processes(processes: Sequence[psutil.Process], *, grace_s: float) -> None:
    """SIGTERM, then SIGKILL those still there after the grace; waits until they are gone."""
    if grace_s > 0:
        for one in processes:
            _signal(one, kill=False)
        _, processes = psutil.wait_procs(processes, timeout=grace_s)
    for one in processes:
        _signal(one, kill=True)
    psutil.wait_procs(processes, timeout=5)


def remove_shared_memory(prefix: str) -> None:
    """Remove shared memory regions that a killed server could not remove itself."""
    for region in _SHARED_MEMORY.glob(f"{prefix}*"):
        region.unlink(missing_ok=True)


def _carries(pid: int, marks: Sequence[str]) -> bool:
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False
    return all(os.fsencode(mark) in environment for mark in marks)


def _signal(process: psutil.Process, *, kill: bool) -> None:
    try:
        process.kill() if kill else process.terminate()
    except psutil.NoSuchProcess:
        return
