"""The proof's look into the object store: every picture that a row refers to is there.

Pictures lie under their hashes, in 256 folders by the first two digits. One folder at a time is listed and
held against the rows with such hashes, so the memory is that of a 256th. Only pictures that somebody else
laid elsewhere are asked for one by one. Sizes are compared for all that are listed; bytes are read and
hashed of one picture per folder, or of all.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from sqlalchemy import Column, Connection, Engine, func, select
from sqlalchemy.sql import ColumnElement

from services.adapters.database import reading
from services.adapters.database.tables import inspections
from services.adapters.object_store import ObjectStore
from services.domain.errors import HashMismatch, UnknownObject
from services.domain.frame import ImageReference
from services.results.ledger import Scope
from services.results.proof import Progress, Proof, silent

_FOLDERS = 256
_ROWS_AT_ONCE = 1000
_IN = inspections.c
# A row's pictures: address, hash, size.
_REFERENCES = (
    (_IN.image_uri, _IN.image_sha256, _IN.image_bytes),
    (_IN.original_uri, _IN.original_sha256, _IN.original_bytes),
)


@dataclass(frozen=True, slots=True)
class Kept:
    """A picture that rows refer to; `frame_id` and `camera` are of one of them."""

    reference: ImageReference
    frame_id: str
    camera: str


def prove_pictures(
    engine: Engine,
    objects: ObjectStore,
    scope: Scope,
    proof: Proof,
    *,
    every_hash: bool,
    progress: Progress = silent,
) -> None:
    """Hold what rows refer to against the object store.

    Args:
        engine: the database.
        objects: the store.
        scope: which frames.
        proof: what is found.
        every_hash: read and hash every picture, instead of one per folder.
        progress: hears of each folder.

    Raises:
        DatabaseUnavailable: no answer.
        StoreUnavailable: no answer.
    """
    check = proof.check("pictures")
    deleted = hashed = 0
    for folder in range(_FOLDERS):
        with reading(engine) as connection:
            kept = {one.reference.uri: one for one in _kept(connection, folder, scope)}
            deleted += _deleted(connection, folder, scope)
        check.looked_at += len(kept)
        there = _sizes(objects, kept, f"/{folder:02x}")
        for uri, one in kept.items():
            if uri not in there:
                _tell_missing(engine, one, folder, scope, proof)
            elif 0 not in (one.reference.size_bytes, there[uri]) and there[uri] != one.reference.size_bytes:
                _wrong(proof, "picture of another size", one)
        sample = [one for one in kept.values() if one.reference.uri in there]
        for one in sample if every_hash else sample[:1]:
            hashed += 1
            _verify(objects, one, proof)
        progress("pictures", folder + 1, _FOLDERS)
    check.told = f"{hashed} read and hashed; {deleted} deleted by policy"


def _kept(connection: Connection, folder: int, scope: Scope) -> Iterator[Kept]:
    """Yield the pictures whose hashes belong into a folder, and that were not deleted by policy."""
    since = scope.of(inspections, _IN.captured_at)
    for uri, digest, size in _REFERENCES:
        where = (uri.is_not(None), _IN.image_deleted_at.is_(None), *_of_folder(digest, folder), *since)
        query = select(uri, digest, size, _IN.frame_id, _IN.camera).where(*where)
        rows = connection.execute(query, execution_options={"yield_per": _ROWS_AT_ONCE})
        for address, sha256, size_bytes, frame_id, camera in rows:
            yield Kept(ImageReference(address, sha256 or "", size_bytes or 0), frame_id, camera)


def _deleted(connection: Connection, folder: int, scope: Scope) -> int:
    where = (_IN.image_deleted_at.is_not(None), *_of_folder(_IN.image_sha256, folder))
    query = select(func.count()).where(*where, *scope.of(inspections, _IN.captured_at))
    return int(connection.execute(query).scalar_one())


def _of_folder(digest: Column[str], folder: int) -> list[ColumnElement[bool]]:
    """Return the bounds of a 256th of all hashes; text that is none is in one of them as well."""
    low = [digest >= f"{folder:02x}"] if folder else []
    high = [digest < f"{folder + 1:02x}"] if folder + 1 < _FOLDERS else []
    return [*low, *high]


def _sizes(objects: ObjectStore, kept: Iterable[str], ending: str) -> dict[str, int]:
    """Return the size of each picture that is there."""
    elsewhere = []
    by_folder: dict[str, set[str]] = defaultdict(set)
    for uri in kept:
        folder = uri.rsplit("/", 1)[0]
        if folder.endswith(ending):
            by_folder[folder].add(uri)
        else:
            elsewhere.append(uri)
    found = {}
    for folder, uris in by_folder.items():
        found.update({e.uri: e.size_bytes for e in objects.entries(folder) if e.uri in uris})
    # Its size is not asked for: that would be a second question.
    found.update({uri: 0 for uri in elsewhere if _is_there(objects, uri)})
    return found


def _is_there(objects: ObjectStore, uri: str) -> bool:
    try:
        return objects.exists(uri)
    except UnknownObject:  # no address at all
        return False


def _tell_missing(engine: Engine, one: Kept, folder: int, scope: Scope, proof: Proof) -> None:
    """Name a picture that is gone, unless retention deleted it a moment ago."""
    with reading(engine) as connection:
        if any(again.reference.uri == one.reference.uri for again in _kept(connection, folder, scope)):
            _wrong(proof, "picture missing", one)


def _verify(objects: ObjectStore, one: Kept, proof: Proof) -> None:
    try:
        objects.get_image(one.reference)
    except (HashMismatch, UnknownObject) as error:
        _wrong(proof, "other bytes than its hash tells", one, reason=error.message)


def _wrong(proof: Proof, finding: str, one: Kept, **facts: object) -> None:
    named = {"camera": one.camera, "frame_id": one.frame_id, "picture": one.reference.uri}
    proof.wrong("pictures", finding, {**named, **facts})
