"""A tritonserver of the trainer's own: on loopback, with an empty repository, gone at the end (arrow 6).

A guard process holds it and watches a pipe to the trainer: whatever becomes of the trainer, the server
ends with it. It knows nothing of the stack's server, so a bad candidate cannot harm what serves.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from uuid import uuid4

import psutil

from services.adapters.triton import ModelServer
from services.domain.errors import MissingPart, ModelUnavailable

# Half a second on a free core; a fit or Ray that starts beside it takes both cores for a while.
START_TIMEOUT_S = 60.0
_LOOK_EVERY_S = 0.1
_END_WAIT_S = 5.0
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where the kernel puts it
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class TritonParts:
    """An installed tritonserver.

    Attributes:
        server: folder with its `bin`, `backends` and `caches`.
        python: of the Python backend's own environment.
    """

    server: Path
    python: Path


class ScratchTriton:
    """A context in which the server runs.

    Attributes:
        repository: its model repository; loads by name only.
        server: its door.
    """

    repository: Path
    server: ModelServer

    def __init__(self, parts: TritonParts, *, start_timeout_s: float = START_TIMEOUT_S) -> None:
        """Start nothing yet."""
        self._parts = parts
        self._start_timeout_s = start_timeout_s
        self._guard: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> ScratchTriton:
        """Start the server and wait until it answers.

        Raises:
            MissingPart: it is not installed where it was said to be.
            ModelUnavailable: it ended, or did not answer in time.
        """
        program = self._parts.server / "bin" / "tritonserver"
        if not program.is_file() or not self._parts.python.is_file():
            raise MissingPart(f"no tritonserver is installed at {self._parts.server}.")
        # The Python backend puts its paths into a shell's command line without quotes: a short folder of
        # its own, whatever the parts' are called.
        self._folder = Path(tempfile.mkdtemp(prefix="loupe-scratch-"))
        try:
            self._start()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the server and remove what it left."""
        self.server.close()
        self._end()

    @property
    def process_id(self) -> int:
        """Of the guard."""
        assert self._guard is not None
        return self._guard.pid

    def _start(self) -> None:
        from services.adapters.triton.server import TritonServer  # gRPC: only where a server is there

        self.repository = self._folder / "models"
        self.repository.mkdir()
        link = self._folder / "tritonserver"
        link.symlink_to(self._parts.server.resolve())
        port, shared_memory = _free_port(), f"loupe_scratch_{uuid4().hex[:12]}"
        command = _command(link, self._parts.python, self.repository, port, shared_memory)
        with (self._folder / "log").open("wb") as log:
            self._guard = subprocess.Popen(
                [sys.executable, "-m", __name__, str(self._folder), shared_memory, *command],
                stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip
        self.server = TritonServer(f"127.0.0.1:{port}")
        end_monotonic_s = time.monotonic() + self._start_timeout_s
        while not self.server.is_live():
            if self._guard.poll() is not None or time.monotonic() > end_monotonic_s:
                self.server.close()
                raise ModelUnavailable(self._why_not_started())
            time.sleep(_LOOK_EVERY_S)

    def _why_not_started(self) -> str:
        assert self._guard is not None
        if self._guard.poll() is None:
            return f"tritonserver did not answer within {self._start_timeout_s:.0f} s."
        words = (self._folder / "log").read_text(errors="replace").strip().splitlines()
        return f"tritonserver ended at once: {words[-1] if words else 'it says nothing'}."

    def _end(self) -> None:
        if self._guard is not None:
            assert self._guard.stdin is not None
            self._guard.stdin.close()  # the guard's sign
            try:
                self._guard.wait(_END_WAIT_S)
            except subprocess.TimeoutExpired:
                self._guard.kill()  # the server dies with it
                self._guard.wait()
        shutil.rmtree(self._folder, ignore_errors=True)


def _command(server: Path, python: Path, repository: Path, port: int, shared_memory: str) -> list[str]:
    """Return the server's command line; `env` adds to the environment that is inherited."""
    library, multiarch = sysconfig.get_config_var("LIBDIR"), sysconfig.get_config_var("MULTIARCH")
    python_backend = {
        "shm-default-byte-size": 4 << 20,
        "shm-growth-byte-size": 4 << 20,
        "stub-timeout-seconds": int(START_TIMEOUT_S),
        "shm-region-prefix-name": shared_memory,
    }
    return [
        "/usr/bin/env",
        # The stub finds its Python by PATH and its shared library here.
        f"PATH={python.parent}:/usr/bin:/bin", f"LD_LIBRARY_PATH={library}:{library}/{multiarch}",
        "OMP_NUM_THREADS=1",
        str(server / "bin" / "tritonserver"),
        f"--model-repository={repository}",
        f"--backend-directory={server / 'backends'}", f"--cache-directory={server / 'caches'}",
        "--model-control-mode=explicit", "--exit-on-error=false", "--exit-timeout-secs=1",
        "--allow-http=false", "--allow-metrics=false",
        "--grpc-address=127.0.0.1", f"--grpc-port={port}",
        *(f"--backend-config=python,{key}={value}" for key, value in python_backend.items()),
    ]  # fmt: skip


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _guard(folder: Path, shared_memory: str, command: list[str]) -> int:
    """Run the server until the pipe to the trainer closes or it ends by itself; leave nothing behind."""
    # Of the main thread, which lives as long as this process: the kernel goes by threads.
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=_die_with_parent)
    is_over = threading.Event()
    threading.Thread(target=_wait_for_end_of_pipe, args=(child.pid, is_over), daemon=True).start()
    status = child.wait()
    _end_stubs(shared_memory)
    for region in _SHARED_MEMORY.glob(f"{shared_memory}*"):
        region.unlink(missing_ok=True)
    if is_over.is_set():  # else the trainer is there, and reads the log
        shutil.rmtree(folder, ignore_errors=True)
    return status


def _end_stubs(shared_memory: str) -> None:
    """End what the server started for models: they carry the name of their memory, which is ours alone."""
    for one in psutil.process_iter():
        with suppress(psutil.Error):
            if one.pid != os.getpid() and any(shared_memory in word for word in one.cmdline()):
                one.kill()


def _wait_for_end_of_pipe(process_id: int, is_over: threading.Event) -> None:
    # Not sys.stdin: its lock, held by this thread, makes the interpreter abort at its end.
    while os.read(0, 1):
        pass
    is_over.set()
    os.kill(process_id, signal.SIGKILL)  # its models hold no state, and SIGTERM takes seconds


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(_guard(Path(sys.argv[1]), sys.argv[2], sys.argv[3:]))
