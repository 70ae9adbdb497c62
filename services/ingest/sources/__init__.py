"""Where images come from, a file per kind of source (arrow 1).

A source gives encoded bytes and never judges them: garbage is the stream's to quarantine. It does not
pace, number or publish (`services.ingest.pipeline`).
"""

from services.ingest.sources.files import (
    SYNTHETIC,
    FileSource,
    SyntheticSource,
    WatchSource,
    images_in,
    is_image,
    open_source,
)
from services.ingest.sources.protocol import Settled, Shot, Skipped, Source, Taken, Unreadable

__all__ = [
    "SYNTHETIC",
    "FileSource",
    "Settled",
    "Shot",
    "Skipped",
    "Source",
    "SyntheticSource",
    "Taken",
    "Unreadable",
    "WatchSource",
    "images_in",
    "is_image",
    "open_source",
]
