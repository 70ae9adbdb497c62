"""What a project may be called. Names become folder names, object keys and Ray application names."""

from __future__ import annotations

import re

from services.domain.errors import BadRequest

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_-]{0,62}")


def checked_project_name(name: str) -> str:
    """Return the name.

    Raises:
        BadRequest: not 1-63 letters, digits, `-` and `_`, beginning with a letter or digit.
    """
    if not _NAME.fullmatch(name):
        message = (
            f"{name[:80]!r} cannot be a project's name: use 1 to 63 letters, digits, - and _, "
            "beginning with a letter or digit."
        )
        raise BadRequest(message, project=name)
    return name
