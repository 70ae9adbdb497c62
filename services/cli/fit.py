"""`loupe fit`: a detector from photos of good parts. Parses, calls `services.trainer.commands`, prints."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from services.cli.layout import open_console, print_facts
from services.embedded.settings import EmbeddedSettings

if TYPE_CHECKING:
    from services.adapters.broker import Producer
    from services.embedded.addresses import StackAddresses
    from services.trainer.commands import FitOutcome
    from services.trainer.fit import Progress as Tell
    from services.trainer.promotion import Promotion

console = open_console()
_STAGES = {"read": "reading", "learn": "learning", "calibrate": "calibrating", "write": "writing"}


def fit(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="DIR", help="Photos of good parts; or folders `normal` and, for a test, `anomaly` in it."
        ),
    ],
    project: Annotated[str, typer.Option("--project", "-p", help="What the detector is for; made if new.")],
    report: Annotated[Path | None, typer.Option(help="Write the numbers here as JSON.")] = None,
    max_false_reject: Annotated[
        float, typer.Option(help="Share of good parts that may be rejected (0.001-0.5).")
    ] = 0.02,
    seed: Annotated[int, typer.Option(help="The same photos and seed give the same detector.")] = 0,
) -> None:
    """Fit a detector from photos of good parts.

    30 photos take some seconds. Photos in a folder `anomaly` are only tested, never learnt from.
    While the stack runs, the new version is served at once.

    Example: `loupe fit photos/ --project cookies`, then `loupe inspect IMAGE --project cookies`
    """
    # Half a second of libraries that `loupe fit --help` does not need.
    from services.adapters.clock import SystemClock
    from services.domain.model_version import FitOptions
    from services.embedded.stack import running_stack
    from services.trainer.commands import FitRequest, fit_folder

    started_s = time.monotonic()
    settings = EmbeddedSettings()
    addresses = running_stack(settings)
    with _neighbours(settings, addresses) as (promotion, producer), _progress() as tell:
        outcome = fit_folder(
            FitRequest(folder, project, FitOptions(max_false_reject_ratio=max_false_reject, seed=seed)),
            promotion=promotion,
            models=settings.home_folder.path / "models",
            producer=producer,
            clock=SystemClock(),
            progress=tell,
        )
    if report is not None:
        report.parent.mkdir(parents=True, exist_ok=True)
        report.write_text(json.dumps(outcome.report(), indent=1) + "\n")
    _tell_outcome(outcome, time.monotonic() - started_s, is_up=addresses is not None)


@contextmanager
def _neighbours(
    settings: EmbeddedSettings, addresses: StackAddresses | None
) -> Iterator[tuple[Promotion, Producer | None]]:
    """Give the stack's promotion and a producer, or, while none runs, the same files without servers."""
    from services.adapters.broker.kafka import KafkaBrokerProducer
    from services.adapters.database import migrate, open_engine
    from services.adapters.object_store.store import folder_store, s3_store
    from services.embedded.promotion import promotion_of

    home = settings.home_folder
    home.path.mkdir(mode=0o700, parents=True, exist_ok=True)
    migrate(home.database_url)
    engine = open_engine(home.database_url)
    if addresses is None:
        yield promotion_of(home, engine, folder_store(home.objects), None), None
        return
    store = s3_store(addresses.s3_endpoint, addresses.s3_key, addresses.s3_secret, addresses.s3_region)
    producer = KafkaBrokerProducer(addresses.kafka_bootstrap)
    try:
        yield promotion_of(home, engine, store, addresses), producer
    finally:
        producer.close()


@contextmanager
def _progress() -> Iterator[Tell]:
    """Show one bar per stage of the fit."""
    columns = (TextColumn("{task.description:<12}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        tasks = {stage: bars.add_task(text, total=1.0, start=False) for stage, text in _STAGES.items()}

        def tell(stage: str, done_ratio: float) -> None:
            bars.start_task(tasks[stage])
            bars.update(tasks[stage], completed=done_ratio)

        yield tell


def _tell_outcome(outcome: FitOutcome, took_s: float, *, is_up: bool) -> None:
    numbers = outcome.report()
    auroc = numbers["image_auroc"]
    facts = {
        "version": numbers["version"],
        "photos": f"{numbers['train_images']} learnt from",
        "threshold": f"{numbers['threshold']:.3f}",
        "image AUROC": "not measured: no anomalous photos given" if auroc is None else f"{auroc:.3f}",
        "size": f"{numbers['file_bytes'] / 1e6:.1f} MB",
        "time": f"{took_s:.1f} s",
        "card": str(outcome.card),
    }
    console.print(f"[green]Fitted[/] {numbers['project']}")
    print_facts(console, facts)
    told = "" if outcome.decision.is_promoted else "[yellow]Not promoted:[/] "
    for reason in outcome.decision.reasons:
        console.print(f"{told}{escape(reason)}")
    for warning in numbers["warnings"]:
        console.print(f"[yellow]Note:[/] {escape(warning)}")
    project = numbers["project"]
    console.print(f"Next: loupe inspect IMAGE --project {project}")
    if not is_up:
        console.print("The stack does not run; `loupe up` will host this version.")
