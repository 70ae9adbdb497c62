"""`loupe train`: a new version from the labels, when trainings happen by themselves, and how they stand.

Parses, publishes a request on `loupe.training` as anyone may, and looks into the trainer's jobs (arrow 6).
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from services.cli.label import login_name
from services.cli.layout import open_console
from services.cli.settings import database_address, kafka_address
from services.cli.train_views import (
    eta_text,
    job_as_data,
    policy_as_data,
    print_jobs,
    print_outcome,
    print_policies,
    stage_text,
)
from services.domain.errors import BadRequest
from services.domain.model_version import FitOptions, JobState, TrainingRequest, check_promise

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from services.trainer.jobs import Job, Jobs

console = open_console()
errors = open_console(stderr=True)
_PRODUCE_TIMEOUT_S = 30.0
_LOOK_EVERY_S = 0.5
# A trainer takes a request within a second, unless it trains already or does not run.
_UNTAKEN_AFTER_S = 10.0
_LISTED = 30


Promise = Annotated[
    float, typer.Option(metavar="SHARE", help="Share of good parts that may be rejected (0.001-0.5).")
]
Budget = Annotated[
    float | None,
    typer.Option(metavar="MS", help="Most milliseconds an image on two threads; no limit if not given."),
]
Families = Annotated[
    list[str] | None, typer.Option(metavar="NAME", help="Only this kind of detector; may be repeated.")
]


def train(
    project: Annotated[str | None, typer.Argument(help="Whose model.")] = None,
    max_false_reject: Promise = 0.02,
    budget_ms: Budget = None,
    family: Families = None,
    thorough: Annotated[
        bool, typer.Option("--thorough", help="Also try kinds that train a network, for minutes.")
    ] = False,
    hold_out: Annotated[
        bool, typer.Option("--hold-out", help="Set photos aside for a test, unless labels say which.")
    ] = False,
    tiles: Annotated[
        int, typer.Option(min=1, max=4, help="Tiles along each side: more see smaller defects.")
    ] = 1,
    seed: Annotated[int, typer.Option(min=0, help="The same labels and seed give the same detector.")] = 0,
    update: Annotated[
        bool, typer.Option("--update", help="Only take what reviewers corrected into the memory: seconds.")
    ] = False,
    wait: Annotated[
        bool | None, typer.Option("--wait/--no-wait", help="Show how far it is; so it does on a terminal.")
    ] = None,
    after_labels: Annotated[
        int | None, typer.Option(metavar="N", help="From now on train after N new or changed labels.")
    ] = None,
    nightly: Annotated[
        str | None, typer.Option(metavar="HH:MM", help="From now on train at night (UTC) if labels are new.")
    ] = None,
    on_request: Annotated[
        bool, typer.Option("--on-request", help="From now on train only when asked; the default.")
    ] = False,
    listed: Annotated[bool, typer.Option("--list", help="Show trainings and policies.")] = False,
    cancel: Annotated[str | None, typer.Option(metavar="ID", help="Call a training off.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object.")] = False,
) -> None:
    """Train a new version of a project's model from its labels, or say when that happens by itself.

    The version serves if it is no worse than the one before it; `loupe models` says why. Ends with code 1
    if nothing came of it.

    For example:

    - `loupe train caps`
    - `loupe train caps --after-labels 20 --nightly 02:30`
    - `loupe train --list`, `loupe train --cancel caps-20261121-104058-ab12`
    """
    if listed:
        _list(project, as_json=as_json)
        return
    if cancel is not None:
        _cancel(cancel, as_json=as_json)
        return
    if project is None:
        raise BadRequest("Name the project to train, or ask for --list or --cancel ID.")
    check_promise(max_false_reject)
    options = FitOptions(max_false_reject, budget_ms, tuple(family or ()), thorough, tiles, seed, hold_out)
    if on_request and (after_labels is not None or nightly is not None):
        raise BadRequest("--on-request means neither --after-labels nor --nightly.")
    if on_request or after_labels is not None or nightly is not None:
        _set_policy(project, after_labels, nightly, options, as_json=as_json)
        return
    is_waiting = console.is_terminal if wait is None else wait
    _train(project, options, is_update=update, is_waiting=is_waiting, as_json=as_json)


def _train(project: str, options: FitOptions, *, is_update: bool, is_waiting: bool, as_json: bool) -> None:
    from services.adapters.broker.kafka import KafkaBrokerProducer
    from services.domain.project import checked_project_name
    from services.trainer.jobs import Jobs
    from services.wire.training import encode_training_request

    now = datetime.now(UTC)
    request = TrainingRequest(
        training_id=f"{checked_project_name(project)}-{now:%Y%m%d-%H%M%S}-{secrets.token_hex(2)}",
        project=project,
        requested_at=now,
        author=login_name(),
        options=options,
        is_update=is_update,
    )
    producer = KafkaBrokerProducer(kafka_address())
    try:
        producer.send(encode_training_request(request)).result(_PRODUCE_TIMEOUT_S)
    finally:
        producer.close()
    with _engine() as engine:
        jobs = Jobs(engine)
        # Now, so that it can be cancelled before a trainer that is busy has taken it.
        job = jobs.queue(request)
        if is_waiting:
            try:
                job = follow(jobs, request.training_id)
            except KeyboardInterrupt:
                errors.print(f"It goes on; to call it off: loupe train --cancel {request.training_id}")
                raise
    if as_json:
        typer.echo(json.dumps(job_as_data(job), indent=1))
    else:
        print_outcome(console, job)
    if job.state in (JobState.FAILED, JobState.CANCELLED):
        raise typer.Exit(1)


def follow(jobs: Jobs, training_id: str) -> Job:
    """Show how far a training is until it has ended, and return it.

    Raises:
        DatabaseUnavailable: it does not answer.
    """
    columns = (
        TextColumn("{task.description:<12}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[eta]}"),
    )
    started_s, is_told = time.monotonic(), False
    with Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal) as bars:
        task = bars.add_task("waiting", total=1.0, eta="")
        while (job := jobs.get(training_id)).is_open:
            is_untaken = job.state is JobState.QUEUED and time.monotonic() - started_s > _UNTAKEN_AFTER_S
            if is_untaken and not is_told:
                errors.print("No trainer has taken it yet: it trains something else, or does not run.")
                is_told = True
            bars.update(
                task, description=stage_text(job), completed=job.done_ratio,
                eta=eta_text(job, datetime.now(UTC)),
            )  # fmt: skip
            time.sleep(_LOOK_EVERY_S)
    return job


def _set_policy(
    project: str, after_labels: int | None, nightly: str | None, options: FitOptions, *, as_json: bool
) -> None:
    from services.domain.project import checked_project_name
    from services.trainer.policies import Policies, Policy

    policy = None
    with _engine() as engine:
        policies = Policies(engine)
        if after_labels is None and nightly is None:
            policies.remove(checked_project_name(project))
        else:
            policy = Policy(project, after_labels, nightly, options, login_name(), datetime.now(UTC))
            policies.put(policy)
    if as_json:
        told = {"project": project, "policy": policy and policy_as_data(policy)}
        typer.echo(json.dumps(told, indent=1))
    elif policy:
        print_policies(console, [policy])
    else:
        console.print(f"[green]{project}[/] trains on request only.")


def _list(project: str | None, *, as_json: bool) -> None:
    from services.trainer.jobs import Jobs
    from services.trainer.policies import Policies

    with _engine() as engine:
        found = Jobs(engine).all(project)[::-1]
        policies = [one for one in Policies(engine).all() if project in (None, one.project)]
    if as_json:
        told = {
            "trainings": [job_as_data(one) for one in found],
            "policies": [policy_as_data(one) for one in policies],
        }
        typer.echo(json.dumps(told, indent=1))
        return
    if found:
        print_jobs(console, found[:_LISTED], datetime.now(UTC))
    else:
        console.print("Nothing was trained yet.")
    if len(found) > _LISTED:
        console.print(f"[dim]and {len(found) - _LISTED} older: --json has all[/]")
    if policies:
        console.print()
        print_policies(console, policies)


def _cancel(training_id: str, *, as_json: bool) -> None:
    from services.trainer.jobs import Jobs

    with _engine() as engine:
        job = Jobs(engine).cancel(training_id, login_name(), datetime.now(UTC))
    if as_json:
        typer.echo(json.dumps(job_as_data(job), indent=1))
    else:
        console.print(f"{training_id} is cancelled.")


@contextmanager
def _engine() -> Iterator[Engine]:
    from services.adapters.database import open_engine

    engine = open_engine(database_address())
    try:
        yield engine
    finally:
        engine.dispose()
