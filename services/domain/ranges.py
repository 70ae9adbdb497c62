"""Sets of whole numbers as ranges: sequences of a camera, offsets of a partition. Pure.

A set is an iterable of ranges (step 1), rising and not touching each other's numbers; results come the
same way, one at a time, so millions of ranges need no memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator


def merged(ranges: Iterable[range]) -> Iterator[range]:
    """Yield the set that these ranges make; they rise by their start and may overlap.

    >>> list(merged([range(0, 5), range(2, 3), range(5, 7), range(9, 10)]))
    [range(0, 7), range(9, 10)]
    """
    current: range | None = None
    for one in ranges:
        if not one:
            continue
        if current is None:
            current = one
        elif one.start <= current.stop:
            current = range(current.start, max(current.stop, one.stop))
        else:
            yield current
            current = one
    if current is not None:
        yield current


def shared(left: Iterable[range], right: Iterable[range]) -> Iterator[range]:
    """Yield the numbers that both sets have.

    >>> list(shared([range(0, 10), range(20, 30)], [range(5, 25)]))
    [range(5, 10), range(20, 25)]
    """
    others = iter(right)
    other = next(others, None)
    for one in left:
        while other is not None and other.start < one.stop:
            if found := range(max(one.start, other.start), min(one.stop, other.stop)):
                yield found
            if other.stop > one.stop:
                break
            other = next(others, None)


def without(left: Iterable[range], right: Iterable[range]) -> Iterator[range]:
    """Yield the numbers of the left set that the right one lacks.

    >>> list(without([range(0, 10), range(20, 30)], [range(5, 25)]))
    [range(0, 5), range(25, 30)]
    """
    others = iter(right)
    other = next(others, None)
    for one in left:
        start = one.start
        while other is not None and other.start < one.stop:
            if start < other.start:
                yield range(start, other.start)
            start = max(start, other.stop)
            if other.stop > one.stop:
                break
            other = next(others, None)
        if start < one.stop:
            yield range(start, one.stop)


def in_runs(numbers: Iterable[int]) -> Iterator[range]:
    """Yield rising numbers as ranges.

    >>> list(in_runs([1, 2, 3, 7]))
    [range(1, 4), range(7, 8)]
    """
    return merged(range(number, number + 1) for number in numbers)


def clusters(ranges: Iterable[range], *, gap: int, most: int) -> Iterator[list[range]]:
    """Yield the set in lists of at most `most` ranges, between which at least `gap` numbers are missing.

    >>> list(clusters([range(0, 2), range(3, 4), range(99, 100)], gap=10, most=100))
    [[range(0, 2), range(3, 4)], [range(99, 100)]]
    """
    together: list[range] = []
    for one in ranges:
        if together and (one.start - together[-1].stop >= gap or len(together) >= most):
            yield together
            together = []
        together.append(one)
    if together:
        yield together
