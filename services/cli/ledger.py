"""`loupe ledger`: prove that every captured frame was judged, quarantined or declared shed."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from services.adapters.broker.reader import KafkaTopicReader, TopicReader
from services.adapters.database import open_engine
from services.cli.events import parse_since
from services.cli.ledger_views import bars, print_balances, print_proof
from services.cli.settings import database_address, kafka_address, object_store
from services.domain.ledger import all_balanced

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from services.adapters.object_store import ObjectStore
    from services.results.ledger import Scope
    from services.results.proof import Proof

T = TypeVar("T")

_ASK_EVERY_S = 0.5


def ledger(
    camera: Annotated[str | None, typer.Option("--camera", metavar="ID", help="Only this camera.")] = None,
    since: Annotated[
        str | None,
        typer.Option("--since", metavar="TIME", help="Only frames since then: 2h, 30m, or a time."),
    ] = None,
    prove: Annotated[
        bool, typer.Option("--prove", help="Recompute all from topics, object store and database.")
    ] = False,
    verify_pixels: Annotated[
        bool, typer.Option("--verify-pixels", help="With --prove: read and hash every kept picture.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object.")] = False,
    wait_s: Annotated[
        float, typer.Option("--wait", metavar="SECONDS", min=0, help="Wait so long for frames on their way.")
    ] = 0.0,
) -> None:
    """Prove captured = judged + quarantined + shed for every camera, and name each missing frame.

    Ends with 0 only when everything balances. Frames on their way are missing until they have a verdict.

    `--since` counts judged frames by their capture, shed and declared ones by their declaration,
    quarantined ones by their failure, and records of other producers by their time in Kafka.

    `--prove` trusts no counter: it walks through all sequences, reads the topics again as far as Kafka
    keeps them, lists the object store, and hashes a sample of the pictures.

    Example: `loupe ledger --prove --wait 30`
    """
    from services.results.ledger import Scope
    from services.results.ledger import prove as balances_of

    scope = Scope(camera, parse_since(since, datetime.now(UTC)) if since else None)
    engine, frames = open_engine(database_address()), KafkaTopicReader(kafka_address())
    deadline_monotonic_s = time.monotonic() + wait_s
    try:
        balances = _look_until(
            lambda: balances_of(engine, frames, scope.camera, scope.since), all_balanced, deadline_monotonic_s
        )
        if not prove:
            print_balances(balances, as_json=as_json)
            is_proved = all_balanced(balances)
        else:
            objects = object_store()
            # Rows of records that came a moment ago may come a moment later.
            proof = _look_until(
                lambda: _prove(engine, frames, objects, scope, verify_pixels=verify_pixels),
                lambda found: found.is_proved,
                deadline_monotonic_s,
                let_go=lambda found: found.close(),
            )
            print_proof(proof, as_json=as_json)
            is_proved = proof.is_proved
            proof.close()
    finally:
        frames.close()
        engine.dispose()
    if not is_proved:
        raise typer.Exit(1)


def _look_until(
    look: Callable[[], T],
    is_good: Callable[[T], bool],
    deadline_monotonic_s: float,
    let_go: Callable[[T], None] = lambda _: None,
) -> T:
    """Return what `look` found once it is good, or last before the deadline; others are let go of."""
    while not is_good(found := look()) and time.monotonic() < deadline_monotonic_s:
        let_go(found)
        time.sleep(_ASK_EVERY_S)
    return found


def _prove(
    engine: Engine, frames: TopicReader, objects: ObjectStore, scope: Scope, *, verify_pixels: bool
) -> Proof:
    from services.results.proof import Proof, prove_sequences
    from services.results.proof_objects import prove_pictures
    from services.results.proof_topics import prove_topics

    proof = Proof()
    with bars() as progress:
        prove_sequences(engine, frames, scope, proof, progress)
        prove_topics(engine, frames, scope, proof, progress)
        prove_pictures(engine, objects, scope, proof, every_hash=verify_pixels, progress=progress)
    return proof
