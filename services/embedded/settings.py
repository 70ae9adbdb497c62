"""Settings of the one-machine stack, and the environment that its processes inherit.

The only file of this package that reads the environment.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from services.embedded.home import Home

# Would send a child process to other packages, another cluster or another cloud account than ours.
_NOT_INHERITED = frozenset({
    "PYTHONHOME", "PYTHONPATH", "PYTHONSTARTUP", "VIRTUAL_ENV", "RAY_ADDRESS",
    "AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN", "AWS_ENDPOINT_URL",
})  # fmt: skip


class EmbeddedSettings(BaseSettings):
    """Where the stack keeps its state and its parts."""

    model_config = SettingsConfigDict(env_prefix="LOUPE_", frozen=True)

    home: Path = Field(
        default=Path(".loupe"), description="Folder of all state; relative to the current directory."
    )
    parts_dir: Path = Field(
        default=Path(sys.prefix, "share", "loupe"),
        description="Folder of installed parts; beside the environment, so that removing it removes them.",
    )
    inference_units: int = Field(
        default_factory=lambda: os.cpu_count() or 1,
        ge=1,
        description="Inference units that this machine offers (count); one per core keeps cores busy.",
    )

    @property
    def home_folder(self) -> Home:
        """The home as an absolute place."""
        return Home(self.home.expanduser().resolve())


def inherited_environment() -> dict[str, str]:
    """Return the environment that the stack's processes start from: the user's, less what misleads.

    Loopback is taken out of any proxy's reach: clients would otherwise send 127.0.0.1 to it.
    """
    environment = {key: value for key, value in os.environ.items() if key not in _NOT_INHERITED}  # noqa: TID251
    for name in ("NO_PROXY", "no_proxy"):
        hosts = [host for host in environment.get(name, "").split(",") if host]
        environment[name] = ",".join(dict.fromkeys([*hosts, "127.0.0.1", "localhost"]))
    return environment
