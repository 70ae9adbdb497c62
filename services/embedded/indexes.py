"""Package indexes as the user configured them for pip, told to uv, which does not read pip's files.

`make setup` evaluates what this prints; set-up of the parts calls `uv_environment`. Says nothing where the
user configured uv itself. Standard library only: it runs before anything is installed.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

# pip's setting, and what uv calls it.
_NAMES = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "trusted-host": "UV_INSECURE_HOST",
    "cert": "SSL_CERT_FILE",
}
_OWN = ("UV_DEFAULT_INDEX", "UV_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL", "UV_CONFIG_FILE")
_LINE = re.compile(r"^(?P<scope>[\w:.]+)\.(?P<name>[\w-]+)='(?P<value>.*)'$", re.MULTILINE)


def uv_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return variables that make uv use pip's indexes; empty where uv has its own configuration."""
    if any(name in environment for name in _OWN) or any(path.exists() for path in _uv_files(environment)):
        return {}
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"],
        capture_output=True, text=True, check=False, env=dict(environment),
    )  # fmt: skip
    return {name: value for name, value in translated(listed.stdout).items() if name not in environment}


def translated(pip_config: str) -> dict[str, str]:
    """Return uv's variables for the output of `pip config list`.

    pip lists weaker scopes (global, site) and the environment in any order; the environment wins.
    """
    found: dict[str, str] = {}
    rows = sorted(_LINE.finditer(pip_config), key=lambda row: row["scope"] == ":env:")
    for row in rows:
        if row["scope"] in {":env:", "global", "install"} and row["name"] in _NAMES:
            # pip's lists come with line breaks, written as \n.
            words = row["value"].replace("\\n", " ").split()
            found[_NAMES[row["name"]]] = ("," if row["name"] == "find-links" else " ").join(words)
    return found


def _uv_files(environment: Mapping[str, str]) -> list[Path]:
    home = environment.get("XDG_CONFIG_HOME") or f"{environment.get('HOME', '')}/.config"
    return [Path(home, "uv", "uv.toml"), Path("/etc/uv/uv.toml")]


if __name__ == "__main__":
    for key, text in uv_environment(os.environ).items():  # noqa: TID251 - runs before settings can be read
        sys.stdout.write(f"export {key}={shlex.quote(text)}\n")
