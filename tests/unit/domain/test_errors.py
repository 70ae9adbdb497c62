"""The error tree has three branches and is drawn as it is."""

from __future__ import annotations

import inspect

from services.domain import errors
from services.domain.errors import LoupeError, Rejected, RetryLater, StopProcess


def test_every_error_belongs_to_one_branch_and_is_drawn_in_the_docstring() -> None:
    found = [e for _, e in inspect.getmembers(errors, inspect.isclass) if issubclass(e, LoupeError)]
    drawn = errors.__doc__ or ""
    for error in found:
        assert f" {error.__name__}" in drawn or error is LoupeError
        branches = [b for b in (RetryLater, Rejected, StopProcess) if issubclass(error, b)]
        assert len(branches) == (0 if error is LoupeError else 1)


def test_an_error_carries_its_sentence_and_its_numbers() -> None:
    error = errors.CannotFit("3 units asked, 2 offered.", asked=3, offered=2)
    assert str(error) == "3 units asked, 2 offered."
    assert error.details == {"asked": 3, "offered": 2}
    assert error.cause == "CannotFit"
