"""`loupe setup | up | down | status | logs | env`: the one-machine stack at the terminal.

Parses, calls `services.embedded` and prints. Knows no server itself.
"""

from __future__ import annotations

import json
import shlex
import time
from collections import deque
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.text import Text

from services.cli.board import Board
from services.cli.layout import Column, open_console, print_facts, print_list
from services.domain.errors import BadRequest, StopProcess
from services.embedded import stack
from services.embedded.addresses import StackAddresses, exported_environment
from services.embedded.parts import Parts
from services.embedded.settings import EmbeddedSettings
from services.embedded.supervision import log_file

console = open_console()
_FOLLOW_EVERY_S = 0.25


def setup() -> None:
    """Install the parts of the stack, pinned by hash, and prepare the backbone.

    Needs the network once; afterwards nothing is downloaded. Running it again does nothing.

    Example: `loupe setup`
    """
    settings = EmbeddedSettings()
    with Board(console, "Setting up") as board:
        Parts(settings.parts_dir).install(board.tell)
        _prepare_backbone(board)


def _prepare_backbone(board: Board) -> None:
    from services.trainer.backbones.efficientnet import default_backbone_path, prepare_backbone

    board.tell("backbone", "preparing")
    prepare_backbone(default_backbone_path().parent)
    board.tell("backbone", "ready")


def up(
    units: Annotated[
        int | None,
        typer.Option(min=1, help="Inference units this machine offers; one per core if not given."),
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option("--only", help="Start this part alone; may be given several times.")
    ] = None,
) -> None:
    """Start the stack: Kafka, Redis, S3, Triton, Ray and Loupe's own processes.

    Takes up to 30 s. Running it again starts only what does not run.

    Example: `loupe up --units 2`, then `loupe status`
    """
    settings = EmbeddedSettings() if units is None else EmbeddedSettings(inference_units=units)
    started_s = time.monotonic()
    with Board(console, "Starting") as board:
        addresses = stack.up(settings, only=only, on_event=lambda event: _tell(board, event))
    console.print(f"[green]Up[/] in {time.monotonic() - started_s:.1f} s.")
    print_facts(console, _where_to_look(addresses))
    for name, address, port in stack.foreign_listeners(settings):
        console.print(f"[yellow]Not on loopback:[/] {name} listens on {address}:{port}")
    if units is not None and addresses.units != units:
        console.print(
            f"It runs with {addresses.units} units; for {units}: `loupe down`, then `loupe up` again."
        )


def _tell(board: Board, event: stack.StackEvent) -> None:
    board.tell(event.part, event.phase, f"{event.seconds:.1f} s" if event.seconds else "")


def _where_to_look(addresses: StackAddresses) -> dict[str, str]:
    return {
        "Kafka": addresses.kafka_bootstrap,
        "S3": addresses.s3_endpoint,
        "metrics": addresses.metrics_url,
        "Ray": addresses.ray_dashboard_url,
        "gateway (gRPC)": addresses.gateway_grpc,
        "state": str(addresses.home),
        "for other programs": 'eval "$(loupe env)"',
    }


def down() -> None:
    """Stop the stack; no process, port or shared memory is left behind.

    Data stays in `.loupe/`. Harmless when nothing runs; also cleans up after a crash.

    Example: `loupe down`
    """
    with Board(console, "Stopping") as board:
        swept = stack.down(EmbeddedSettings(), on_event=lambda event: _tell(board, event))
    also = f" {swept} processes of an earlier crash were ended." if swept else ""
    console.print(f"[green]Down.[/]{also}")


def status(
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list.")] = False,
) -> None:
    """Show health, memory, port and version of each part.

    Example: `loupe status --json`
    """
    parts = stack.status(EmbeddedSettings())
    if as_json:
        typer.echo(json.dumps([asdict(part) for part in parts], indent=1))
        return
    if not parts:
        console.print("The stack does not run; `loupe up` starts it.")
        return
    columns = (
        *(Column(name) for name in ("  part", "pid", "port", "version")),
        *(Column(name, is_right=True) for name in ("MB", "start s")),
    )
    rows = []
    for part in parts:
        mark = ("● ", "green") if part.healthy else ("● ", "red")
        start = "" if part.start_s is None else f"{part.start_s:.1f}"
        where = (str(part.pid or "-"), str(part.port), part.version)
        rows.append((Text.assemble(mark, part.name), *where, f"{part.rss_mb:.0f}", start))
    together = f"{sum(part.rss_mb for part in parts):.0f}"
    rows.append((Text("  together"), "", "", "", together, ""))
    print_list(console, columns, rows)


def logs(
    part: Annotated[str, typer.Argument(help="Part, as `loupe status` names it, or supervisord.")],
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on as lines come.")] = False,
    lines: Annotated[int, typer.Option("-n", "--lines", min=1, help="How many of the last lines.")] = 50,
) -> None:
    """Print the end of one part's log.

    Example: `loupe logs kafka -f`
    """
    home = EmbeddedSettings().home_folder
    path = log_file(home, part)
    if not path.exists():
        known = sorted(log.stem for log in home.logs.glob("*.log"))
        raise BadRequest(f"no log of {part}; there are: {', '.join(known) or 'none yet'}")
    with path.open(errors="replace") as file:
        for line in deque(file, maxlen=lines):
            typer.echo(line, nl=False)
        while follow:
            if line := file.readline():
                typer.echo(line, nl=False)
                continue
            time.sleep(_FOLLOW_EVERY_S)
            if _was_rotated(path, file.tell()):
                file.seek(0)


def _was_rotated(path: Path, position: int) -> bool:
    return path.exists() and path.stat().st_size < position


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list.")] = False,
) -> None:
    """Find what this machine lacks, and print the line that mends each thing.

    Looks at Python and its shared library, memory, disk, ports, and the hash of every part's files.
    Exit code 1 when something is wrong.

    Example: `loupe doctor`
    """
    from services.embedded.doctor import examine

    findings = list(examine(EmbeddedSettings()))
    if as_json:
        typer.echo(json.dumps([asdict(finding) for finding in findings], indent=1))
    for finding in () if as_json else findings:
        mark = "[green]✓[/]" if finding.mend is None else "[red]✗[/]"
        console.print(f"{mark} [bold]{finding.subject:<15}[/] {escape(finding.detail)}")
        if finding.mend is not None:
            console.print(f"  mend it with: [cyan]{escape(finding.mend)}[/]")
    if any(finding.mend is not None for finding in findings):
        raise typer.Exit(1)


def env() -> None:
    """Print lines that a shell evaluates, so that other programs find this stack.

    Example: `eval "$(loupe env)"`, then `aws s3 ls` or any Kafka client
    """
    addresses = stack.running_stack(EmbeddedSettings())
    if addresses is None:
        raise StopProcess("The stack does not run; `loupe up` starts it.")
    for name, value in exported_environment(addresses).items():
        typer.echo(f"export {name}={shlex.quote(value)}")
