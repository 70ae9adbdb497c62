"""Runs under the supervisor in place of a server that leaves children behind: sweep, then exec.

`python -m services.embedded.launch STACK PART SHARED_MEMORY_PREFIX COMMAND…`. A server that was killed
may have children alive that hold its ports, and the new one would fail on them.
"""

from __future__ import annotations

import os
import sys

from services.embedded.leftovers import remove_shared_memory, sweep


def main(stack_id: str, part: str, shared_memory_prefix: str, *command: str) -> None:
    """End leftovers of the same part, then become the command."""
    sweep(stack_id, part, grace_s=0.5)
    remove_shared_memory(shared_memory_prefix)
    os.execv(command[0], command)  # noqa: S606 - the supervisor must see the server itself


if __name__ == "__main__":
    main(*sys.argv[1:])
