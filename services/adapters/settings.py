"""Settings that several processes share: where the object store is.

Each process's own `settings.py` builds on it. Names are those of every S3 client, so without `LOUPE_`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings

if TYPE_CHECKING:
    from services.adapters.object_store import ObjectStore


class S3Settings(BaseSettings):
    """Where objects are kept, and by which key."""

    s3_endpoint: str | None = Field(
        default=None, validation_alias="AWS_ENDPOINT_URL_S3", description="S3 server; none: Amazon's."
    )
    s3_key: str | None = Field(
        default=None,
        validation_alias="AWS_ACCESS_KEY_ID",
        description="None: the client library's own sources of credentials count.",
    )
    s3_secret: SecretStr | None = Field(
        default=None, validation_alias="AWS_SECRET_ACCESS_KEY", description="Secret of the key."
    )
    s3_region: str = Field(
        default="us-east-1", validation_alias="AWS_DEFAULT_REGION", description="Region of the buckets."
    )

    def object_store(self) -> ObjectStore:
        """Return the store; connects on first use only."""
        # Commands and idle ingesters that need no store are spared the import: half of their memory.
        from services.adapters.object_store.store import s3_store

        secret = self.s3_secret.get_secret_value() if self.s3_secret else None
        return s3_store(self.s3_endpoint, self.s3_key, secret, self.s3_region)
