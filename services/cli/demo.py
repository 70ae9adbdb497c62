"""`loupe demo`: the main job in one command. Parses, calls `services.embedded.demo` and exits."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console


def demo(
    images: Annotated[
        Path | None,
        typer.Option(
            help="Folder with your photos: normal/ (or good, ok) and, if you have them, anomaly/ (or bad, "
            "defect, anomalous). Without it a synthetic line is filmed."
        ),
    ] = None,
    cameras: Annotated[int, typer.Option(min=1, max=64, help="How many cameras share the photos.")] = 2,
    fps: Annotated[float, typer.Option(min=0.01, max=1000, help="Frames per second of each camera.")] = 3.0,
    report: Annotated[Path | None, typer.Option(help="Write a JSON report here.")] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the stack running afterwards.")] = False,
    seed: Annotated[int, typer.Option(help="Chooses which normals train, and the synthetic line.")] = 0,
) -> None:
    """Fit a detector, film, judge live on real parts, and prove that no frame was lost.

    70 % of the normal photos train the detector; every other photo is filmed once, published to Kafka,
    judged by Ray Serve and Triton, and stored. The exit code is 0 only when the ledger balances.

    Example: `loupe demo`, or `loupe demo --images photos --report report.json --keep`
    """
    from services.embedded.demo.run import Demo, DemoOptions
    from services.embedded.settings import EmbeddedSettings

    options = DemoOptions(images, cameras, fps, keep, report, seed)
    # A log file has no width of its own; tables in 80 columns would fold every path.
    console = Console() if sys.stdout.isatty() else Console(width=120)
    if not Demo(options, EmbeddedSettings(), console).run():
        typer.secho("The ledger does not balance; see `loupe ledger`.", fg=typer.colors.RED, err=True)
        raise typer.Exit(1)
