"""TrainingRequest <-> protobuf or JSON and Kafka record (arrow 6)."""

from __future__ import annotations

import math

from services.domain.errors import MalformedRecord
from services.domain.model_version import MAX_TILES, FitOptions, TrainingRequest
from services.domain.topics import TRAINING
from services.wire.gen.loupe.v1 import training_pb2
from services.wire.headers import write_headers
from services.wire.inspection import PROTOBUF
from services.wire.json_or_protobuf import parse
from services.wire.record import OutRecord, Record
from services.wire.times import from_timestamp, to_timestamp

TRAINING_TYPE = "io.loupe.training.v1"
_DEFAULT_FALSE_REJECT_RATIO = 0.02
_DEFAULT_TRIGGER = "request"


def encode_training_request(request: TrainingRequest) -> OutRecord:
    """Return the record for `loupe.training`."""
    options = request.options
    message = training_pb2.TrainingRequest(
        training_id=request.training_id,
        project=request.project,
        requested_at=to_timestamp(request.requested_at),
        author=request.author,
        seed=options.seed,
        max_false_reject_ratio=options.max_false_reject_ratio,
        budget_ms=options.budget_ms or 0,
        families=options.families,
        thorough=options.is_thorough,
        hold_out=options.holds_out,
        tiles=0 if options.tiles == 1 else options.tiles,
        trigger="" if request.trigger == _DEFAULT_TRIGGER else request.trigger,
        update=request.is_update,
    )
    headers = write_headers(
        event_type=TRAINING_TYPE,
        source=f"/projects/{request.project}",
        event_id=request.training_id,
        time=request.requested_at,
        content_type=PROTOBUF,
    )
    return OutRecord(TRAINING.name, request.project.encode(), message.SerializeToString(), headers)


def decode_training_request(record: Record) -> TrainingRequest:
    """Return the request of a record, protobuf or JSON.

    Raises:
        MalformedRecord: without project, with a name that cannot be printed, or with a number that no fit
            could take.
    """
    message = parse(record, training_pb2.TrainingRequest())
    if not message.project:
        raise MalformedRecord("A training request needs a project.")
    promise = message.max_false_reject_ratio or _DEFAULT_FALSE_REJECT_RATIO
    if not 0 < promise < 1:
        raise MalformedRecord(f"max_false_reject_ratio is {promise}, it has to lie between 0 and 1.")
    names = (message.training_id, message.author, message.trigger, *message.families)
    if not all(one.isprintable() for one in names):
        raise MalformedRecord("The names in a training request are of printable characters.")
    if message.seed < 0:
        raise MalformedRecord(f"The seed is {message.seed}, it has to be 0 or more.")
    if not 0 <= message.tiles <= MAX_TILES:
        raise MalformedRecord(f"{message.tiles} tiles along each side make no sense; give 1 to {MAX_TILES}.")
    if not (math.isfinite(message.budget_ms) and message.budget_ms >= 0):
        raise MalformedRecord(f"The budget is {message.budget_ms} ms, it has to be a number from 0 on.")
    has_time = message.HasField("requested_at")
    place = f"{record.topic}-{record.partition}-{record.offset}"
    return TrainingRequest(
        training_id=message.training_id or place,
        project=message.project,
        requested_at=from_timestamp(message.requested_at) if has_time else record.recorded_at,
        author=message.author,
        options=FitOptions(
            max_false_reject_ratio=promise,
            budget_ms=message.budget_ms or None,
            families=tuple(message.families),
            is_thorough=message.thorough,
            holds_out=message.hold_out,
            tiles=message.tiles or 1,
            seed=message.seed,
        ),
        trigger=message.trigger or _DEFAULT_TRIGGER,
        is_update=message.update,
    )
