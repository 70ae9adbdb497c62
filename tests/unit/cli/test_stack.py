"""The stack's commands where no stack runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from services.cli.main import app


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LOUPE_HOME", str(tmp_path))
    monkeypatch.setenv("LOUPE_PARTS_DIR", str(tmp_path / "parts"))
    return tmp_path


def loupe(*words: str) -> Result:
    return CliRunner().invoke(app, list(words))


def test_status_of_nothing_says_how_to_start_it(home: Path) -> None:
    assert "`loupe up` starts it" in loupe("status").output
    assert json.loads(loupe("status", "--json").output) == []


def test_env_of_nothing_fails_with_a_sentence(home: Path) -> None:
    result = loupe("env")
    assert result.exit_code == 1
    assert "loupe up" in result.stderr
    assert result.stdout == ""


def test_down_of_nothing_is_harmless(home: Path) -> None:
    assert loupe("down").exit_code == 0


def test_up_without_parts_names_the_command_that_installs_them(home: Path) -> None:
    result = loupe("up")
    assert result.exit_code == 1
    assert "run `loupe setup`" in result.stderr


def test_logs_prints_the_last_lines(home: Path) -> None:
    (home / "logs").mkdir()
    (home / "logs" / "kafka.log").write_text("one\ntwo\nthree\n")
    assert loupe("logs", "kafka", "-n", "2").output == "two\nthree\n"


def test_logs_of_an_unknown_part_names_those_there_are(home: Path) -> None:
    (home / "logs").mkdir()
    (home / "logs" / "kafka.log").touch()
    result = loupe("logs", "zookeeper")
    assert result.exit_code == 2
    assert "there are: kafka" in result.stderr


def test_doctor_names_missing_parts_and_fails(home: Path) -> None:
    result = loupe("doctor")
    assert result.exit_code == 1
    assert "not installed" in result.output
    assert "mend it with: loupe setup" in result.output


@pytest.mark.parametrize("command", ["setup", "up", "down", "status", "logs", "env", "doctor"])
def test_help_teaches_with_an_example(command: str) -> None:
    assert "Example: " in loupe(command, "--help").output
