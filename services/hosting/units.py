"""How inference units are shared out; pure rules, no I/O.

A unit is one replica of one model. A project is admitted with all units it asks for or not at all:
its maximum counts, so that what was promised is never taken by another's peak.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from services.domain.hosting import Hosting

# What `changed_by` says where nobody chose: only such numbers may be changed by the rules below.
BY_DEFAULT = "loupe-hosting"


def units_for_new(
    hosted: Sequence[tuple[Hosting, str]], *, offered: int, default_units: int
) -> tuple[int, tuple[Hosting, ...]]:
    """Return the units of a project that nobody chose a number for, and who gives some away for it.

    The first project gets all units, so that one machine with one model uses every core. The next
    ones get `default_units` each, one at the least: from the free ones, else from the largest
    projects that got theirs by default, which keep one each. If that is not enough, it asks for
    them all the same, and is refused by `admission` with the numbers.

    Args:
        hosted: (hosting, changed by) of every project.
        offered: units of the whole cluster.
        default_units: units of a further project.
    """
    if not hosted:
        return offered, ()
    free = offered - sum(hosting.max_units for hosting, _ in hosted)
    givers = _givers(hosted, default_units - free)
    before = {hosting.project: hosting.max_units for hosting, _ in hosted}
    free += sum(before[giver.project] - giver.max_units for giver in givers)
    return max(1, min(default_units, free)), givers


def shares_at_start(hosted: Sequence[tuple[Hosting, str]], *, offered: int) -> tuple[Hosting, ...]:
    """Return who gets another number of units because the cluster offers another number than before.

    A single project that got all units by default gets all again. Several that got theirs by
    default give some away, the largest first, until all fit or each has one.
    """
    if len(hosted) == 1 and hosted[0][1] == BY_DEFAULT:
        only = hosted[0][0]
        wanted = replace(only, min_units=offered, max_units=offered)
        return () if wanted == only else (wanted,)
    missing = sum(hosting.max_units for hosting, _ in hosted) - offered
    return _givers(hosted, missing)


def _givers(hosted: Sequence[tuple[Hosting, str]], missing: int) -> tuple[Hosting, ...]:
    """Return the defaulted hostings that give `missing` units away, or as many as they can."""
    able = {hosting.project: hosting for hosting, by in hosted if by == BY_DEFAULT}
    changed: dict[str, Hosting] = {}
    for _ in range(missing):
        largest = max(able.values(), key=lambda hosting: hosting.max_units, default=None)
        if largest is None or largest.max_units <= 1:
            break
        units = largest.max_units - 1
        smaller = replace(largest, min_units=min(largest.min_units, units), max_units=units)
        able[largest.project] = changed[largest.project] = smaller
    return tuple(changed.values())


def admission(hostings: Sequence[Hosting], offered: int) -> dict[str, str]:
    """Return project -> why it cannot be hosted, of those that do not fit; earlier ones go first.

    Args:
        hostings: in order of who came first.
        offered: units of the whole cluster.
    """
    refused: dict[str, str] = {}
    free = offered
    for hosting in hostings:
        if hosting.max_units <= free:
            free -= hosting.max_units
        else:
            refused[hosting.project] = (
                f"Needs {hosting.max_units} inference units; {free} of the {offered} that the cluster "
                "offers are free."
            )
    return refused
