"""Where the reading commands look, when the environment says it; else the running stack does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from services.domain.errors import StopProcess
from services.embedded.settings import EmbeddedSettings
from services.embedded.stack import StackAddresses, running_stack

if TYPE_CHECKING:
    from services.adapters.object_store import ObjectStore


class ReadingSettings(BaseSettings):
    """Addresses from the environment, for a cluster or any Kafka."""

    model_config = SettingsConfigDict(env_prefix="LOUPE_", frozen=True)

    kafka_bootstrap: str | None = Field(default=None, description="Kafka, host:port; none: the stack's.")
    database_url: str | None = Field(default=None, description="The database; none: the stack's.")
    ingest_url: str | None = Field(default=None, description="The ingester's HTTP door; none: the stack's.")
    s3_endpoint: str | None = Field(
        default=None, validation_alias="AWS_ENDPOINT_URL_S3", description="S3 server; none: Amazon's."
    )
    s3_key: str | None = Field(default=None, validation_alias="AWS_ACCESS_KEY_ID", description="Key id.")
    s3_secret: str | None = Field(
        default=None, validation_alias="AWS_SECRET_ACCESS_KEY", repr=False, description="Secret key."
    )
    s3_region: str = Field(
        default="us-east-1", validation_alias="AWS_DEFAULT_REGION", description="Region of the buckets."
    )


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
        return s3_store(given.s3_endpoint, given.s3_key, given.s3_secret, given.s3_region)
    stack = _stack()
    return s3_store(stack.s3_endpoint, stack.s3_key, stack.s3_secret, stack.s3_region)


def _stack() -> StackAddresses:
    addresses = running_stack(EmbeddedSettings())
    if addresses is None:
        raise StopProcess("The stack does not run; `loupe up` starts it.")
    return addresses
