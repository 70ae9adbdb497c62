"""Objects by `s3://bucket/key`: pixels, model folders, datasets.

`store` works on any fsspec file system: S3, the folder that the one-machine S3 server serves, or memory.
"""

from services.adapters.object_store.listing import ObjectEntry
from services.adapters.object_store.store import (
    ObjectStore,
    folder_store,
    image_reference,
    memory_store,
    s3_store,
)

__all__ = ["ObjectEntry", "ObjectStore", "folder_store", "image_reference", "memory_store", "s3_store"]
