"""Where the reading commands look, when the environment says it; else the running stack does."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from services.domain.errors import StopProcess
from services.embedded.settings import EmbeddedSettings
from services.embedded.stack import StackAddresses, running_stack


class ReadingSettings(BaseSettings):
    """Addresses from the environment, for a cluster or any Kafka."""

    model_config = SettingsConfigDict(env_prefix="LOUPE_", frozen=True)

    kafka_bootstrap: str | None = Field(default=None, description="Kafka, host:port; none: the stack's.")
    database_url: str | None = Field(default=None, description="The database; none: the stack's.")


def kafka_address() -> str:
    """Return the bootstrap address of Kafka.

    Raises:
        StopProcess: neither the environment nor a running stack tells.
    """
    return ReadingSettings().kafka_bootstrap or _stack().kafka_bootstrap


def database_address() -> str:
    """Return the URL of the database.

    Raises:
        StopProcess: neither the environment nor a running stack tells.
    """
    return ReadingSettings().database_url or _stack().database_url


def _stack() -> StackAddresses:
    addresses = running_stack(EmbeddedSettings())
    if addresses is None:
        raise StopProcess("The stack does not run; `loupe up` starts it.")
    return addresses
