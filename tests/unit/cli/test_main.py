"""The `loupe` command: quick help, and errors as one sentence."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from services.cli import main
from services.cli.main import COMMANDS, Entry, app
from services.domain.errors import BadRequest, StopProcess


def fails_by_request() -> None:
    """Raise what a person's bad input raises."""
    raise BadRequest("no such part")


def fails_for_good() -> None:
    """Raise what a broken stack raises."""
    raise StopProcess("the stack does not run")


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    """Return a runner that also knows two failing commands of this module."""
    monkeypatch.setattr(
        main, "import_module", lambda name: sys.modules[__name__] if "failing" in name else name
    )
    for name in ("fails_by_request", "fails_for_good"):
        monkeypatch.setitem(COMMANDS, name, Entry(f"failing:{name}", "Fails.", "Test"))
    return CliRunner()


def test_help_lists_every_command_and_imports_none() -> None:
    program = (
        "import sys; from services.cli.main import app\n"
        "try: app(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = ('services.embedded', 'services.cli.stack', 'services.domain', 'kafka')\n"
        "loaded = [module for module in sys.modules if module.startswith(heavy)]\n"
        "sys.exit(f'imported {loaded}' if loaded else 0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    for name in COMMANDS:
        assert name in done.stdout


def test_an_unknown_command_is_a_usage_error(runner: CliRunner) -> None:
    result = runner.invoke(app, ["no-such-command"])
    assert result.exit_code == 2
    assert "no-such-command" in result.output


@pytest.mark.parametrize(
    ("command", "code", "sentence"),
    [("fails_by_request", 2, "no such part"), ("fails_for_good", 1, "the stack does not run")],
)
def test_an_error_is_one_sentence_and_an_exit_code(
    runner: CliRunner, command: str, code: int, sentence: str
) -> None:
    result = runner.invoke(app, [command])
    assert result.exit_code == code
    assert result.stderr.strip() == sentence
    assert "Traceback" not in result.output


def fails_to_write() -> None:
    """Do what `--save` does with a file that cannot be."""
    Path("/dev/null/photo.jpg").write_bytes(b"")


def test_a_file_that_cannot_be_written_is_a_sentence(
    runner: CliRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(COMMANDS, "fails_to_write", Entry("failing:fails_to_write", "Fails.", "Test"))
    result = runner.invoke(app, ["fails_to_write"])
    assert result.exit_code == 1
    assert result.stderr == "/dev/null/photo.jpg: Not a directory.\n"


def test_a_database_without_tables_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOUPE_DATABASE_URL", f"sqlite:///{tmp_path / 'other.db'}")
    result = CliRunner().invoke(app, ["labels"])
    assert result.exit_code == 1
    assert result.stderr.startswith("The database lacks tables")


def test_the_version_is_printed(runner: CliRunner) -> None:
    assert runner.invoke(app, ["--version"]).output.startswith("loupe ")
