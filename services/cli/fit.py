"""`loupe fit`: a detector from photos of good parts. Parses, calls `services.trainer.commands`, prints."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn
from rich.text import Text

from services.cli.fit_views import print_forecast, print_outcome
from services.cli.layout import open_console
from services.cli.report_file import check_report, write_report
from services.domain.errors import BadRequest
from services.embedded.settings import EmbeddedSettings

if TYPE_CHECKING:
    from services.adapters.broker import Producer
    from services.embedded.addresses import StackAddresses
    from services.trainer.fit import Progress as Tell
    from services.trainer.promotion import Promotion

console = open_console()
_STAGES = {
    "read": "reading",
    "learn": "learning",
    "choose": "choosing",
    "calibrate": "calibrating",
    "write": "writing",
}
# What is nearly over needs no forecast.
_LEAST_REMAINING_S = 3.0


def fit(
    folder: Annotated[
        Path,
        typer.Argument(metavar="DIR", help="Photos of good parts; or folders `normal` and `anomaly` in it."),
    ],
    project: Annotated[str, typer.Option("--project", "-p", help="What the detector is for; made if new.")],
    max_false_reject: Annotated[
        float, typer.Option(metavar="SHARE", help="Share of good parts that may be rejected (0.001-0.5).")
    ] = 0.02,
    budget_ms: Annotated[
        float | None,
        typer.Option(metavar="MS", help="Most milliseconds an image on two threads; no limit if not given."),
    ] = None,
    family: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="Only this kind of detector; may be repeated. Chosen by itself if not given."
        ),
    ] = None,
    thorough: Annotated[
        bool, typer.Option("--thorough", help="Also try kinds that train a network, for minutes.")
    ] = False,
    hold_out: Annotated[
        bool,
        typer.Option(
            "--hold-out",
            help="Set a fifth aside for a test, ten of a kind at least. Else all photos train, and each is "
            "measured by what the others taught.",
        ),
    ] = False,
    tiles: Annotated[
        int,
        typer.Option(
            metavar="N",
            help="Tiles along each side (1-4): more see smaller defects and cost their square.",
        ),
    ] = 1,
    backbone: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="An ONNX network to take features from, or `random` for one without weights."
        ),
    ] = None,
    backbone_licence: Annotated[
        str, typer.Option(metavar="TEXT", help="Licence of its weights, where the file does not say.")
    ] = "",
    seed: Annotated[
        int, typer.Option(metavar="N", help="The same photos and seed give the same detector.")
    ] = 0,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the numbers here as JSON.")
    ] = None,
) -> None:
    """Fit a detector from photos of good parts.

    30 photos take some seconds; photos of defects, if there are any, help to choose the detector and
    measure it. While the stack runs, the new version is served at once.

    The first three commands, from photos of good parts to verdicts:

    - `loupe fit photos/ --project cookies`

    - `loupe inspect new.jpg --project cookies`

    - `loupe up`, and whatever a camera sends is judged

    Small defects: `--tiles 2`. Minutes to spare: `--thorough`. A fast line: `--budget-ms 10`.
    """
    # Half a second of libraries that `loupe fit --help` does not need.
    from services.adapters.clock import SystemClock
    from services.domain.model_version import FitOptions
    from services.embedded.stack import running_stack
    from services.trainer.commands import FitRequest, fit_folder, forecast

    started_s = time.monotonic()
    _check(budget_ms, seed)
    check_report(report)
    options = FitOptions(max_false_reject, budget_ms, tuple(family or ()), thorough, tiles, seed, hold_out)
    request = FitRequest(folder, project, options, backbone, backbone_licence)
    if tiles > 1:
        print_forecast(console, forecast(request), tiles)
    settings = EmbeddedSettings()
    addresses = running_stack(settings)
    with _neighbours(settings, addresses) as (promotion, producer), _progress() as tell:
        outcome = fit_folder(
            request,
            promotion=promotion,
            models=settings.home_folder.path / "models",
            producer=producer,
            clock=SystemClock(),
            progress=tell,
        )
    print_outcome(console, outcome, time.monotonic() - started_s, is_up=addresses is not None)
    write_report(report, outcome.report())


def _check(budget_ms: float | None, seed: int) -> None:
    """Refuse before any work what would be refused after it.

    Raises:
        BadRequest: a budget of nothing, or a negative seed.
    """
    if budget_ms is not None and not 0 < budget_ms < math.inf:
        message = f"A budget of {budget_ms:g} ms an image makes no sense; give more than 0, for example 10."
        raise BadRequest(message, budget_ms=budget_ms)
    if seed < 0:
        raise BadRequest(f"A seed of {seed} makes no sense; give 0 or more.", seed=seed)


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


class _Remaining(ProgressColumn):
    """How long a stage will still take, where that is worth telling."""

    def render(self, task: Task) -> Text:
        """Return whole seconds, or nothing."""
        left_s = task.time_remaining
        if task.finished or left_s is None or left_s < _LEAST_REMAINING_S:
            return Text()
        return Text(f"about {left_s:.0f} s left", "cyan")


@contextmanager
def _progress() -> Iterator[Tell]:
    """Show a bar per stage of the fit, from the moment the stage begins."""
    columns = (TextColumn("{task.description:<12}"), BarColumn(), TimeElapsedColumn(), _Remaining())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        tasks = {}

        def tell(stage: str, done_ratio: float) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(_STAGES.get(stage, stage), total=1.0)
            bars.update(tasks[stage], completed=done_ratio)

        yield tell
