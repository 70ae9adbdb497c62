"""The `loupe` command: a table of commands, each imported only when it is called.

To add a command: write `services/cli/<module>.py` with a function (its docstring is the help) or, for a
group, a `typer.Typer` object, and add one line to `COMMANDS`. Does nothing but parse, call and print.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version as version_of
from typing import Any

import typer
from typer.core import TyperGroup


@dataclass(frozen=True, slots=True)
class Entry:
    """Where one command is written, and what `loupe --help` says of it.

    Attributes:
        target: `module:name` below `services.cli`; a function or a `typer.Typer`.
        panel: heading under which it is listed.
    """

    target: str
    help: str
    panel: str


_RUN, _JUDGE, _LOOK = "Run", "Detect", "Look"
COMMANDS: dict[str, Entry] = {
    "demo": Entry("demo:demo", "Film a production line and judge it live, on real parts.", _RUN),
    "setup": Entry("stack:setup", "Install the parts of the one-machine stack.", _RUN),
    "up": Entry("stack:up", "Start the stack: Kafka, Redis, S3, Triton, Ray and Loupe's processes.", _RUN),
    "down": Entry("stack:down", "Stop the stack and leave nothing behind.", _RUN),
    "fit": Entry("fit:fit", "Fit a detector from photos of good parts.", _JUDGE),
    "synth": Entry("synth:synth", "Look at the synthetic defects that detectors are compared on.", _JUDGE),
    "inspect": Entry("inspect:inspect", "Judge image files.", _JUDGE),
    "evaluate": Entry("evaluate:evaluate", "Measure a detector on labelled photos.", _JUDGE),
    "bench": Entry("bench:bench", "Measure families and backbones on sets of real photos.", _JUDGE),
    "camera": Entry("camera:app", "Cameras: add them, see how they do, publish images as one.", _JUDGE),
    "route": Entry("route:app", "Which camera goes to which project.", _JUDGE),
    "label": Entry("label:label", "Say what pictures show: normal, or which anomaly where.", _JUDGE),
    "train": Entry("train:train", "Train from the labels, now or by itself; trainings so far.", _JUDGE),
    "models": Entry("models:models", "Model versions: which serve, which were kept and why.", _LOOK),
    "labels": Entry("label:labels", "What each project's dataset holds.", _LOOK),
    "dataset": Entry("dataset:dataset", "A project's labelled images, and which models saw them.", _LOOK),
    "status": Entry("stack:status", "Health, memory, port and version of each part.", _LOOK),
    "drift": Entry("drift:drift", "Do the cameras still show what the models learnt from?", _LOOK),
    "events": Entry("events:events", "Anomaly events as they come.", _LOOK),
    "image": Entry("image:image", "The pixels of a frame, wherever they are.", _LOOK),
    "archive": Entry("archive:app", "Kept pixels: how many, and what their time has run out for.", _LOOK),
    "ledger": Entry("ledger:ledger", "Prove that no frame was lost.", _LOOK),
    "dlq": Entry("dlq:app", "Records that could not be handled.", _LOOK),
    "logs": Entry("stack:logs", "The log of one part.", _LOOK),
    "env": Entry("stack:env", 'Variables for other programs: eval "$(loupe env)".', _LOOK),
    "asyncapi": Entry("asyncapi:asyncapi", "The AsyncAPI document of all topics, for your programs.", _LOOK),
    "doctor": Entry("stack:doctor", "Find what this machine lacks, and the line that mends it.", _LOOK),
}


class LazyGroup(TyperGroup):
    """Lists commands from the table and imports the one that is called."""

    _is_listing = False

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 - Click gives it
        """Return the names in the table's order."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002 - Click gives it
        """Return the command; while help is written, only what the table says of it."""
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        return _stub(cmd_name, entry) if self._is_listing else _load(cmd_name, entry)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write help without importing any command."""
        self._is_listing = True
        try:
            super().format_help(ctx, formatter)
        finally:
            self._is_listing = False

    def invoke(self, ctx: Any) -> Any:
        """Run the command; an error that Loupe raised on purpose is one sentence and an exit code."""
        from services.domain.errors import LoupeError, Rejected

        try:
            return super().invoke(ctx)
        except LoupeError as error:
            typer.secho(error.message, fg=typer.colors.RED, err=True)
            raise typer.Exit(2 if isinstance(error, Rejected) else 1) from error
        except OSError as error:
            # Files that a person named; a closed pipe and the like are Click's.
            if error.filename is None:
                raise
            typer.secho(f"{error.filename}: {error.strerror}.", fg=typer.colors.RED, err=True)
            raise typer.Exit(1) from error
        except KeyboardInterrupt:
            raise typer.Exit(130) from None


def _stub(name: str, entry: Entry) -> Any:
    bare = typer.Typer(add_completion=False)
    bare.command(name, help=entry.help, rich_help_panel=entry.panel)(lambda: None)
    return typer.main.get_command(bare)


def _load(name: str, entry: Entry) -> Any:
    module, attribute = entry.target.split(":")
    target = getattr(import_module(f"services.cli.{module}"), attribute)
    if not isinstance(target, typer.Typer):
        target, function = typer.Typer(add_completion=False, rich_markup_mode="markdown"), target
        target.command(name)(function)
    command = typer.main.get_command(target)
    command.name = name
    return command


def _print_version(is_wanted: bool) -> None:
    if is_wanted:
        typer.echo(f"loupe {version_of('loupe-inspect')}")
        raise typer.Exit


app = typer.Typer(
    cls=LazyGroup, no_args_is_help=True, rich_markup_mode="markdown", pretty_exceptions_enable=False
)


@app.callback(epilog="Start here: `loupe demo`, or `loupe up` and then `loupe fit DIR --project NAME`.")
def loupe(
    version: bool = typer.Option(
        False, "--version", help="Print the version.", callback=_print_version, is_eager=True
    ),
) -> None:
    """Loupe watches a production line: images in on Kafka, accountable verdicts out.

    State lives in `.loupe/` of the current directory; `LOUPE_HOME` moves it.
    """


if __name__ == "__main__":
    app()
