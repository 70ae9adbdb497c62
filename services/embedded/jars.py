"""Java servers as pinned lists of jars: fetched by `jgo` from Maven, each checked by SHA-256.

A list is resolved once, by `python -m services.embedded.jars` (part of `make lock`), and committed;
set-up fetches exactly that and resolves nothing. Where jars come from is jgo's own configuration.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.domain.errors import MissingPart

PINS = Path(__file__).parent / "pins"
# Small files from one server: waiting dominates, and more would be impolite.
_DOWNLOADS_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class JarList:
    """One server's class path.

    Attributes:
        coordinates: what was asked for, `group:artifact:version`.
        exclusions: `group:artifact` that the resolver must leave out.
        jars: every jar by full coordinate, with the SHA-256 of its bytes.
    """

    version: str
    coordinates: tuple[str, ...]
    exclusions: tuple[str, ...]
    jars: Mapping[str, str]


def read_pins(name: str) -> JarList:
    """Return the committed list of one server."""
    content = json.loads((PINS / f"{name}.json").read_text())
    return JarList(
        content["version"], tuple(content["coordinates"]), tuple(content["exclusions"]), content["jars"]
    )


def class_path(folder: Path) -> str:
    """Return the jars of a folder in a fixed order, which a class-data archive depends on."""
    return ":".join(str(jar) for jar in sorted(folder.glob("*.jar")))


def fetch_jars(name: str, folder: Path, note: Callable[[str], None]) -> None:
    """Put all jars of one list into a folder.

    Args:
        name: of the list.
        folder: exists.
        note: told how far it is.

    Raises:
        MissingPart: a jar cannot be had, or has another SHA-256 than committed.
    """
    pins = read_pins(name)
    with _maven() as context, ThreadPoolExecutor(_DOWNLOADS_AT_ONCE) as pool:
        jobs = [pool.submit(_fetch, context, jar, sha256, folder) for jar, sha256 in pins.jars.items()]
        for done, job in enumerate(as_completed(jobs), start=1):
            job.result()
            note(f"{done} of {len(jobs)} jars")


def fetch_jar(jar: str, sha256: str, folder: Path) -> None:
    """Put one jar, by its full coordinate, into a folder.

    Raises:
        MissingPart: it cannot be had, or has another SHA-256.
    """
    with _maven() as context:
        _fetch(context, jar, sha256, folder)


def damaged_jars(name: str, folder: Path) -> list[str]:
    """Return the jars of one list that a folder lacks or holds with other bytes."""
    pins = read_pins(name)
    return [jar for jar, sha256 in pins.jars.items() if _sha256_of(folder / _file_name(jar)) != sha256]


def _fetch(context: Any, jar: str, sha256: str, folder: Path) -> None:
    group, artifact, version = jar.split(":")
    try:
        path = context.project(group, artifact).at_version(version).artifact().resolve()
    except (OSError, RuntimeError) as error:
        raise MissingPart(f"{jar} cannot be downloaded: {error}", jar=jar) from error
    if _sha256_of(path) != sha256:
        path.unlink(missing_ok=True)
        raise MissingPart(f"{jar} has another SHA-256 than the committed one; try again", jar=jar)
    shutil.copyfile(path, folder / _file_name(jar))


def _file_name(jar: str) -> str:
    _, artifact, version = jar.split(":")
    return f"{artifact}-{version}.jar"


def _sha256_of(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return ""


# One entry per download on its way; the trust store is the process's, not a thread's.
_trusting: list[None] = []
_trusting_lock = threading.Lock()


@contextmanager
def _maven() -> Iterator[Any]:
    """Give jgo's access to Maven with the user's own repositories and cache.

    Meanwhile certificates are checked against the machine's own trust store, as pip does: behind a company's
    proxy the bundle that Python packages bring is not enough. Other clients of this process do not go well
    with that, so it ends with the last download: parts are installed side by side.
    """
    from jgo.config import GlobalSettings
    from jgo.constants import MAVEN_CENTRAL_URL
    from jgo.maven import MavenContext

    with _trusting_as_the_machine():
        settings = GlobalSettings.load()
        repositories = {"central": MAVEN_CENTRAL_URL, **settings.repositories}
        yield MavenContext(repo_cache=settings.repo_cache, remote_repos=repositories, timeout=60)


@contextmanager
def _trusting_as_the_machine() -> Iterator[None]:
    """Check certificates against the machine's trust store while anybody is inside; any thread may be."""
    import truststore

    with _trusting_lock:
        if not _trusting:
            truststore.inject_into_ssl()
        _trusting.append(None)
    try:
        yield
    finally:
        with _trusting_lock:
            _trusting.pop()
            if not _trusting:
                truststore.extract_from_ssl()


def resolve_pins(names: Iterable[str]) -> None:
    """Resolve the coordinates of each list anew and write the jars it then has."""
    from jgo.env import EnvironmentBuilder, EnvironmentSpec, LinkStrategy, LockFile

    for name in names:
        pins = read_pins(name)
        with tempfile.TemporaryDirectory() as folder, _maven() as context:
            builder = EnvironmentBuilder(
                context=context, cache_dir=Path(folder), link_strategy=LinkStrategy.COPY
            )
            spec = EnvironmentSpec(
                name=name, coordinates=list(pins.coordinates), exclusions=list(pins.exclusions)
            )
            lock = LockFile.load(builder.from_spec(spec, update=True).path / "jgo.lock.toml")
        jars = {f"{one.groupId}:{one.artifactId}:{one.version}": one.sha256 for one in lock.dependencies}
        content = {
            "version": pins.version,
            "coordinates": pins.coordinates,
            "exclusions": pins.exclusions,
            "jars": dict(sorted(jars.items())),
        }
        (PINS / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    resolve_pins(sys.argv[1:] or ("kafka", "s3proxy"))
