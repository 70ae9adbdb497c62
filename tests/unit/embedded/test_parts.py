"""Parts: all or nothing, once, and told when they are not whole."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from threading import Event, Thread

import pytest

from services.domain.errors import MissingPart
from services.embedded import parts as parts_module
from services.embedded.parts import Parts, damaged_files


@pytest.fixture
def installs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Replace the real installers by ones that write one file; returns the log of calls."""
    calls: list[str] = []

    def installer(name: str) -> parts_module.Installer:
        def install(_: Parts, staging: Path, note: parts_module.Note) -> None:
            note("half")
            calls.append(name)
            (staging / "file").write_text(name)

        return install

    monkeypatch.setattr(parts_module, "_INSTALLERS", {name: installer(name) for name in ("kafka", "s3proxy")})
    monkeypatch.setattr(parts_module, "_AFTER", ("s3proxy",))
    return calls


def test_installing_twice_installs_once(tmp_path: Path, installs: list[str]) -> None:
    parts = Parts(tmp_path)
    told: list[tuple[str, str, str]] = []
    assert parts.missing() == ["kafka", "s3proxy"]
    parts.install(lambda *news: told.append(news))
    parts.install(lambda *news: told.append(news))
    assert installs == ["kafka", "s3proxy"]
    assert parts.missing() == []
    assert ("kafka", "installing", "half") in told
    parts.require()


def test_two_installs_at_once_install_once(tmp_path: Path, installs: list[str]) -> None:
    go = Event()

    def install() -> None:
        go.wait(5)
        Parts(tmp_path).install(lambda *_: None)

    threads = [Thread(target=install) for _ in range(2)]
    for thread in threads:
        thread.start()
    go.set()
    for thread in threads:
        thread.join(10)
    assert sorted(installs) == ["kafka", "s3proxy"]


def test_a_failed_install_leaves_no_half_part(
    tmp_path: Path, installs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Parts, staging: Path, __: parts_module.Note) -> None:
        (staging / "half").write_text("half")
        raise MissingPart("no network")

    monkeypatch.setitem(parts_module._INSTALLERS, "kafka", fail)
    parts = Parts(tmp_path)
    with pytest.raises(MissingPart, match="no network"):
        parts.install(lambda *_: None)
    assert "kafka" in parts.missing()
    assert [path.name for path in tmp_path.iterdir() if path.name != ".lock"] == []


def test_an_older_version_of_a_part_is_removed(tmp_path: Path, installs: list[str]) -> None:
    old, other = tmp_path / "kafka-0123456789ab", tmp_path / "kafka-archive-0123456789ab"
    old.mkdir()
    other.mkdir()
    Parts(tmp_path).install(lambda *_: None)
    assert not old.exists()
    assert other.exists()


def test_missing_parts_are_named_with_the_command_that_helps(tmp_path: Path) -> None:
    with pytest.raises(MissingPart, match=r"kafka.*run `loupe setup`"):
        Parts(tmp_path).require()


def test_a_changed_file_of_a_distribution_is_found(tmp_path: Path) -> None:
    digest = base64.urlsafe_b64encode(hashlib.sha256(b"whole").digest()).decode().rstrip("=")
    (tmp_path / "server").write_bytes(b"whole")
    info = tmp_path / "some_part-1.0.dist-info"
    info.mkdir()
    (info / "RECORD").write_text(f"server,sha256={digest},5\nsome_part-1.0.dist-info/RECORD,,\n")
    assert damaged_files("some-part", tmp_path) == []
    (tmp_path / "server").write_bytes(b"changed")
    assert damaged_files("some-part", tmp_path) == ["server"]
    assert damaged_files("another", tmp_path) == ["another"]
