"""What machine figures were measured on, as a person writes it below a table (arrow 6)."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path

import psutil

_CPUINFO = Path("/proc/cpuinfo")


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine.

    Attributes:
        cpu: name of its processor.
        cores: that this process may use.
        memory_gib: of all.
        load: processes that wanted a core in the last minute, on average; figures of a busy machine
            are slower.
    """

    cpu: str
    cores: int
    memory_gib: float
    load: float

    def __str__(self) -> str:
        return f"{self.cpu}, {self.cores} cores, {self.memory_gib:.0f} GiB, load {self.load:.1f}"


def this_machine() -> Machine:
    """Return the machine that this process runs on."""
    return Machine(
        cpu=_cpu_name(),
        cores=len(os.sched_getaffinity(0)),
        memory_gib=round(psutil.virtual_memory().total / 2**30, 1),
        load=round(os.getloadavg()[0], 1),
    )


def _cpu_name() -> str:
    for line in _CPUINFO.read_text().splitlines() if _CPUINFO.is_file() else ():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.processor() or platform.machine()
