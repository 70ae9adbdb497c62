"""Part and lot ids out of file names, object names and film names (arrow 1).

A rule is a regular expression with the named groups `part_id` and `lot_id`, one or both, searched anywhere
in the name. Headers and triggers, which name parts too, win over it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from threading import Event

from services.domain.errors import BadRequest
from services.ingest.sources.protocol import Shot, Source, Taken

PART, LOT = "part_id", "lot_id"
_EXAMPLE = r"(?P<lot_id>L\d+)_(?P<part_id>P\d+), which finds lot L7 and part P123 in L7_P123.png"
# An id is a header of every record and a column of every row.
_LONGEST_ID = 128
_LONGEST_PATTERN = 500
# File systems know no longer names; of an object's key the end counts.
_LONGEST_NAME = 255


class NameRule:
    """Finds part and lot in a name."""

    def __init__(self, pattern: str) -> None:
        """Compile `pattern`.

        Raises:
            BadRequest: it is no regular expression, or has neither group; the sentence holds an example.
        """
        if len(pattern) > _LONGEST_PATTERN:
            raise BadRequest(f"A name pattern has at most {_LONGEST_PATTERN} characters.")
        try:
            self._pattern = re.compile(pattern)
        except (re.error, OverflowError, RecursionError) as error:
            raise BadRequest(
                f"The name pattern {pattern!r} is no regular expression: {error}. An example: {_EXAMPLE}."
            ) from error
        if not {PART, LOT} & self._pattern.groupindex.keys():
            raise BadRequest(
                f"The name pattern {pattern!r} has no group part_id or lot_id. An example: {_EXAMPLE}."
            )

    def find(self, name: str) -> tuple[str | None, str | None]:
        """Return part id and lot id, None where the name has none."""
        found = self._pattern.search(name[-_LONGEST_NAME:])
        groups = found.groupdict() if found else {}
        return _id(groups.get(PART)), _id(groups.get(LOT))


class NamedSource:
    """A source whose shots get part and lot from their subjects, where they have none yet."""

    def __init__(self, inner: Source, rule: NameRule) -> None:
        """Run `inner`."""
        self._inner, self._rule = inner, rule

    def shots(self, stop: Event) -> Iterator[Taken | None]:
        """See `Source.shots`."""
        for taken in self._inner.shots(stop):
            if isinstance(taken, Shot):
                part_id, lot_id = self._rule.find(taken.subject)
                yield replace(taken, part_id=taken.part_id or part_id, lot_id=taken.lot_id or lot_id)
            else:
                yield taken


def _id(text: str | None) -> str | None:
    """Return an id that a header can carry, None when nothing of it can."""
    kept = "".join(c for c in text or "" if c.isprintable()).strip()[:_LONGEST_ID]
    return kept or None
