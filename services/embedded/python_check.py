"""Whether this Python can carry Loupe; run by `make setup` with the system's Python, before anything else.

Standard library only, and nothing newer than Python 3.8, so that an old one can still say what is wrong.
"""

from __future__ import annotations

import ctypes
import importlib.util
import platform
import sys
import sysconfig
from pathlib import Path
from typing import List, Tuple  # noqa: UP035 - an old Python must get as far as its sentence

_TAG = "{}.{}".format(*sys.version_info[:2])


def python_problems() -> List[Tuple[str, str]]:  # noqa: UP006
    """Return what is wrong with this Python, each with the line that mends it."""
    problems = []
    if not (3, 11) <= sys.version_info[:2] <= (3, 12):
        problems.append(
            (f"Python is {_TAG}, Loupe needs 3.11 or 3.12", "apt-get install python3.11 python3.11-venv")
        )
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        problems.append((f"this is {sys.platform} {platform.machine()}", "use Linux on x86-64"))
    if importlib.util.find_spec("venv") is None or importlib.util.find_spec("ensurepip") is None:
        problems.append(("Python lacks venv", f"apt-get install python{_TAG}-venv"))
    if not has_shared_library():
        problems.append(
            (
                "Python lacks its shared library, which Triton's backend loads",
                f"apt-get install libpython{_TAG}"
                f"   (pyenv: PYTHON_CONFIGURE_OPTS=--enable-shared pyenv install -f {_TAG})",
            )
        )
    return problems


def shared_library_folders() -> List[str]:  # noqa: UP006
    """Return where this Python's shared library may be."""
    folder, multiarch = sysconfig.get_config_var("LIBDIR"), sysconfig.get_config_var("MULTIARCH")
    return [folder, f"{folder}/{multiarch}"] if multiarch else [folder]


def has_shared_library() -> bool:
    """Tell whether a program that is linked with libpython would find it."""
    name = f"libpython{_TAG}.so.1.0"
    if any(Path(folder, name).exists() for folder in shared_library_folders()):
        return True
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True


if __name__ == "__main__":
    for problem, mend in python_problems():
        sys.stderr.write(f"{sys.executable}: {problem}\n  mend it with: {mend}\n")
    sys.exit(bool(python_problems()))
