"""Where images come from, a file per kind of source (arrow 1).

A source gives encoded bytes and never judges them: garbage is the stream's to quarantine. It does not
pace, number or publish (`services.ingest.pipeline`). `opening` turns what a person wrote into a source.
"""

from services.ingest.sources.files import FileSource, SyntheticSource, images_in
from services.ingest.sources.opening import SourceKind, check_source, open_camera, open_source
from services.ingest.sources.protocol import CapturedBefore, Settled, Shot, Skipped, Source, Taken, Unreadable
from services.ingest.sources.triggers import TriggerFeed

__all__ = [
    "CapturedBefore",
    "FileSource",
    "Settled",
    "Shot",
    "Skipped",
    "Source",
    "SourceKind",
    "SyntheticSource",
    "Taken",
    "TriggerFeed",
    "Unreadable",
    "check_source",
    "images_in",
    "open_camera",
    "open_source",
]
