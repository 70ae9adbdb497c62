"""`supervisord` for one home: generated configuration, start, and its XML-RPC over a Unix socket.

It restarts what dies; who starts when is decided by `stack`. No TCP port of its own.
"""

from __future__ import annotations

import configparser
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xmlrpc.client import Fault, ServerProxy

import psutil

from services.domain.errors import StopProcess
from services.embedded.home import Home
from services.embedded.leftovers import PART_MARK
from services.embedded.programs import Program

_START_DEADLINE_S = 10.0
_STOP_DEADLINE_S = 5.0
_ALREADY_STARTED = 60
_NOT_RUNNING = 70
# A process that ends sooner than this did not start: the supervisor waits longer each time, so that a
# broken setting does not burn a core. Importing takes ours up to 3 s.
_START_SECONDS = 5
_START_RETRIES = 30
_LOG_BYTES = 10 << 20
_LOG_BACKUPS = 2
_LAST_WORDS_LINES = 12


@dataclass(frozen=True, slots=True)
class ProcessInfo:
    """What the supervisor knows of one process.

    Attributes:
        state: STOPPED, STARTING, RUNNING, BACKOFF, STOPPING, EXITED or FATAL.
        pid: None when it does not run.
        started_unix_s: when it was last started, 0 for never.
    """

    name: str
    state: str
    pid: int | None
    started_unix_s: int
    problem: str


@dataclass(frozen=True, slots=True)
class Supervisor:
    """The supervisor of one home."""

    home: Home

    def is_alive(self) -> bool:
        """Tell whether it answers on its socket."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(2)
            try:
                probe.connect(str(self.home.supervisor_socket))
            except OSError:
                return False
            return True

    def start(self, programs: Iterable[Program], environment: Mapping[str, str]) -> None:
        """Write the configuration and start it in the background, with nothing running yet.

        Raises:
            StopProcess: it did not answer in time.
        """
        config = self.home.config / "supervisord.conf"
        config.touch(mode=0o600)
        with config.open("w") as file:
            supervisor_configuration(self.home, programs).write(file)
        done = subprocess.run(
            [sys.executable, "-m", "supervisor.supervisord", "-c", str(config)],
            env=dict(environment), cwd=self.home.path, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        end_monotonic_s = time.monotonic() + _START_DEADLINE_S
        while not self.is_alive():
            if done.returncode or time.monotonic() > end_monotonic_s:
                raise StopProcess(f"supervisord did not start: {done.stderr.strip()[-400:]}")
            time.sleep(0.05)

    def start_program(self, name: str) -> None:
        """Start a program; does nothing when it runs."""
        self._call("startProcess", name, False, expected=_ALREADY_STARTED)

    def stop_program(self, name: str) -> None:
        """Stop a program and wait until it is gone; does nothing when it does not run."""
        self._call("stopProcess", name, True, expected=_NOT_RUNNING)

    def shutdown(self) -> None:
        """Stop everything and the supervisor itself; returns when it is gone or does not go."""
        try:
            process = psutil.Process(self._call("getPID", expected=None))
            self._call("shutdown", expected=None)
            process.wait(_STOP_DEADLINE_S)
        except (OSError, psutil.Error):
            return

    def processes(self) -> dict[str, ProcessInfo]:
        """Return what runs, by name; empty when the supervisor is gone."""
        try:
            infos = self._call("getAllProcessInfo", expected=None)
        except OSError:
            return {}
        return {
            info["name"]: ProcessInfo(
                info["name"], info["statename"], info["pid"] or None, info["start"], info["spawnerr"]
            )
            for info in infos
        }

    def _call(self, method: str, *arguments: object, expected: int | None) -> Any:
        from supervisor.xmlrpc import SupervisorTransport

        transport = SupervisorTransport(serverurl=f"unix://{self.home.supervisor_socket}")
        # The address is not used: the transport speaks to the socket.
        with ServerProxy("http://127.0.0.1", transport=transport) as proxy:
            try:
                return getattr(proxy.supervisor, method)(*arguments)
            except Fault as fault:
                if fault.faultCode == expected:
                    return None
                raise


def log_file(home: Home, name: str) -> Path:
    """Return the log of one part."""
    return home.logs / f"{name}.log"


def last_words(home: Home, name: str) -> str:
    """Return the end of a part's log, for the sentence that says why it failed."""
    try:
        lines = log_file(home, name).read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return "(no log)"
    return "\n".join(lines[-_LAST_WORDS_LINES:])


def supervisor_configuration(home: Home, programs: Iterable[Program]) -> configparser.RawConfigParser:
    """Return the generated configuration; programs start only when they are told to."""
    config = configparser.RawConfigParser()
    config.optionxform = str  # type: ignore[assignment,method-assign] # names are case-sensitive
    config["unix_http_server"] = {"file": _value(home.supervisor_socket), "chmod": "0700"}
    config["rpcinterface:supervisor"] = {
        "supervisor.rpcinterface_factory": "supervisor.rpcinterface:make_main_rpcinterface"
    }
    config["supervisord"] = {
        "logfile": _relative_log(home, "supervisord"),
        "logfile_maxbytes": str(_LOG_BYTES),
        "logfile_backups": str(_LOG_BACKUPS),
        "pidfile": _value(home.runtime / "supervisord.pid"),
        "childlogdir": home.logs.name,
        "umask": "077",
        **({"user": "root"} if os.getuid() == 0 else {}),
    }
    for program in programs:
        config[f"program:{program.name}"] = _program_section(home, program)
    return config


def _program_section(home: Home, program: Program) -> dict[str, str]:
    environment = {**program.environment, PART_MARK: program.name}
    return {
        "command": " ".join(_quoted(word) for word in program.command),
        "environment": ",".join(f"{key}={_quoted(value)}" for key, value in environment.items()),
        "autostart": "false",
        "autorestart": "true",
        "startsecs": str(_START_SECONDS),
        "startretries": str(_START_RETRIES),
        "stopwaitsecs": str(program.stop_wait_s),
        "stopasgroup": str(program.is_group_stopped).lower(),
        "killasgroup": "true",
        "redirect_stderr": "true",
        "stdout_logfile": _relative_log(home, program.name),
        "stdout_logfile_maxbytes": str(_LOG_BYTES),
        "stdout_logfile_backups": str(_LOG_BACKUPS),
    }


def _relative_log(home: Home, name: str) -> str:
    """Return a log as seen from the home, where all run; a `%` of its path would be expanded twice."""
    return str(log_file(home, name).relative_to(home.path))


def _value(path: object) -> str:
    """Escape what the supervisor would expand."""
    return str(path).replace("%", "%%")


def _quoted(word: str) -> str:
    """Quote one word for the supervisor's shell-like splitting."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{_value(escaped)}"'
