"""What `loupe doctor` looks at: this machine, this Python, every part, and the stack if it runs.

Each finding says what is so and, when it is wrong, the one line that mends it. Mends nothing itself.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from services.domain.errors import MissingPart
from services.embedded import stack
from services.embedded.home import PORT_NAMES, free_ports, load_state
from services.embedded.parts import Parts, part_versions
from services.embedded.python_check import python_problems
from services.embedded.settings import EmbeddedSettings

_GIB = 1 << 30
# The stack takes up to 4 GiB; a browser and a desktop need the rest.
_LEAST_MEMORY_BYTES = 5 * _GIB
# Topics may keep 4 GiB of frames; parts and environment are installed already.
_LEAST_DISK_BYTES = 5 * _GIB
# Ray's object store is 80 MiB, each model instance maps 8 MiB.
_LEAST_SHARED_MEMORY_BYTES = 200 << 20
# tritonserver is linked against it.
_LEAST_GLIBC = (2, 35)
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where the kernel puts it


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        mend: the line that mends it; None when it is well.
    """

    subject: str
    detail: str
    mend: str | None = None


def examine(settings: EmbeddedSettings) -> Iterator[Finding]:
    """Look at everything, cheap things first."""
    yield from _python()
    yield _glibc()
    yield from _resources(settings)
    yield _ports(settings)
    yield from _parts(settings)
    yield _backbone()
    yield from _running(settings)


def _python() -> Iterator[Finding]:
    problems = python_problems()
    for problem, mend in problems:
        yield Finding("python", problem, mend)
    if not problems:
        yield Finding("python", "version, venv and shared library")


def _glibc() -> Finding:
    name = os.confstr("CS_GNU_LIBC_VERSION") or "unknown"
    found = tuple(int(number) for number in name.removeprefix("glibc ").split(".") if number.isdigit())
    if found < _LEAST_GLIBC:
        return Finding("glibc", name, "use a distribution of 2022 or later (Debian 12, Ubuntu 22.04)")
    return Finding("glibc", name)


def _resources(settings: EmbeddedSettings) -> Iterator[Finding]:
    home = settings.home_folder
    is_running = stack.running_stack(settings) is not None
    # What a running stack holds is not missing.
    memory_bytes = psutil.virtual_memory().total if is_running else psutil.virtual_memory().available
    yield _enough("memory", memory_bytes, _LEAST_MEMORY_BYTES, "close other programs, or add memory")
    nearest = next(folder for folder in (home.path, *home.path.parents) if folder.exists())
    disk_bytes = shutil.disk_usage(nearest).free
    yield _enough("disk", disk_bytes, _LEAST_DISK_BYTES, "LOUPE_HOME=/a/larger/disk loupe up")
    if not os.access(nearest, os.W_OK):
        yield Finding("home", f"{nearest} is not writable", "LOUPE_HOME=/a/folder/of/yours loupe up")
    shared_bytes = shutil.disk_usage(_SHARED_MEMORY).free
    yield _enough(
        "shared memory", shared_bytes, _LEAST_SHARED_MEMORY_BYTES,
        "mount -o remount,size=1G /dev/shm   (in a container: --shm-size=1g)",
    )  # fmt: skip


def _enough(subject: str, found_bytes: int, least_bytes: int, mend: str) -> Finding:
    detail = f"{found_bytes / _GIB:.1f} GiB free, {least_bytes / _GIB:.1f} wanted"
    return Finding(subject, detail, mend if found_bytes < least_bytes else None)


def _ports(settings: EmbeddedSettings) -> Finding:
    state = load_state(settings.home_folder)
    if state is not None and stack.running_stack(settings) is not None:
        return Finding("ports", f"{min(state.ports.values())} and on, in use by this stack")
    try:
        found = free_ports(len(PORT_NAMES), seed=settings.home_folder.stack_id)
    except OSError as error:
        return Finding("ports", f"loopback cannot be used: {error}", "ip link set lo up")
    if len(found) < len(PORT_NAMES):
        return Finding(
            "ports", "too few free ports from 20000 to 32000", "ss -ltnp   (and stop what takes them)"
        )
    return Finding("ports", f"{len(found)} free on loopback")


def _parts(settings: EmbeddedSettings) -> Iterator[Finding]:
    parts = Parts(settings.parts_dir)
    missing = parts.missing()
    versions = part_versions()
    for name, damaged in parts.damage().items():
        version = versions.get(name, "")
        if name in missing:
            yield Finding(name, "not installed", "loupe setup")
        elif damaged:
            yield Finding(name, f"changed on disk: {', '.join(damaged[:3])}", parts.mend(name))
        else:
            yield Finding(name, f"{version} whole".strip())


def _backbone() -> Finding:
    from services.trainer.backbones.efficientnet import load_backbone

    try:
        return Finding("backbone", load_backbone().identity.name + " whole")
    except MissingPart as error:
        return Finding("backbone", error.message, "loupe setup")


def _running(settings: EmbeddedSettings) -> Iterator[Finding]:
    for part in stack.status(settings):
        if not part.healthy:
            yield Finding(part.name, "does not answer", f"loupe logs {part.name}")
    for name, address, port in stack.foreign_listeners(settings):
        yield Finding(name, f"listens on {address}:{port}", "loupe down && loupe up")
