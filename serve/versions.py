"""Model version folders on this node: fetched once, verified by hash, shared by all replicas (arrow 6).

Keyed by the SHA-256 of the manifest, which names the hash of every other file. Knows no Triton.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from services.adapters.object_store import ObjectStore
from services.domain.errors import CorruptModel
from services.domain.model_version import Manifest
from services.vision.runtime import MANIFEST_FILE, verify_folder


@dataclass(frozen=True, slots=True)
class VersionFolder:
    """A verified folder of one model version."""

    path: Path
    manifest: Manifest


class VersionCache:
    """Version folders by manifest hash, under one folder of this node."""

    def __init__(self, store: ObjectStore, folder: Path) -> None:
        """Keep folders fetched from `store` under `folder`."""
        self._store = store
        self._folder = folder

    def fetch(self, uri: str) -> VersionFolder:
        """Return the verified version folder at `uri` (`s3://bucket/prefix`). Blocks.

        Raises:
            UnknownObject: there is no model at that address.
            CorruptModel: its hashes do not agree with its manifest.
            StoreUnavailable: the store did not answer.
        """
        manifest = self._store.get(f"{uri.rstrip('/')}/{MANIFEST_FILE}")
        place = self._folder / hashlib.sha256(manifest).hexdigest()
        if place.is_dir():
            with suppress(CorruptModel):  # changed on disk since: fetch it again
                return _open(place)
            shutil.rmtree(place, ignore_errors=True)
        self._download(uri.rstrip("/"), place)
        return _open(place)

    def _download(self, uri: str, place: Path) -> None:
        """Put the folder at `place` in one step, so that other replicas see all of it or nothing."""
        self._folder.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=".fetch-", dir=self._folder))
        try:
            self._store.download_folder(uri, temporary)
            verify_folder(temporary)
            with suppress(OSError):  # another replica was faster; its copy is as good
                temporary.rename(place)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _open(folder: Path) -> VersionFolder:
    return VersionFolder(folder, verify_folder(folder))
