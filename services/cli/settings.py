"""Where the reading commands look, when the environment says it; else the running stack does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from services.adapters.settings import S3Settings
from services.domain.errors import StopProcess
from services.embedded.settings import EmbeddedSettings
from services.embedded.stack import StackAddresses, running_stack

if TYPE_CHECKING:
    from services.adapters.object_store import ObjectStore


class ReadingSettings(S3Settings):
    """Addresses from the environment, for a cluster or any Kafka."""

    model_config = SettingsConfigDict(env_prefix="LOUPE_", frozen=True)

    kafka_bootstrap: str | None = Field(default=None, description="Kafka, host:port; none: the stack's.")
    database_url: str | None = Field(default=None, description="The database; none: the stack's.")
    ingest_url: str | None = Field(default=None, description="The ingester's HTTP door; none: the stack's.")


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


def ingest_address() -> str:
    """Return the URL of the door that pictures are pushed to; of a cluster, with a name to be filled in."""
    given = ReadingSettings()
    if given.ingest_url or given.database_url:
        return (given.ingest_url or "http://INGESTER:9101").rstrip("/")
    return _stack().ingest_url


def object_store() -> ObjectStore:
    """Return the object store: the environment's where it names a Kafka, else the running stack's.

    Raises:
        StopProcess: neither the environment nor a running stack tells.
    """
    from services.adapters.object_store.store import s3_store

    given = ReadingSettings()
    if given.kafka_bootstrap:
        return given.object_store()
    stack = _stack()
    return s3_store(stack.s3_endpoint, stack.s3_key, stack.s3_secret, stack.s3_region)


def _stack() -> StackAddresses:
    addresses = running_stack(EmbeddedSettings())
    if addresses is None:
        raise StopProcess("The stack does not run; `loupe up` starts it.")
    return addresses
