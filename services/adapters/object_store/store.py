"""The object store over fsspec: content-addressed images and version folders.

Blocking; call it from a thread, never from an event loop.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

import fsspec

from services.adapters.object_store.listing import (
    ObjectEntry,
    bucket_exists,
    entry_of,
    infos_under,
    is_s3,
    move_object,
)
from services.domain.errors import HashMismatch, StoreUnavailable, UnknownObject
from services.domain.frame import ImageReference

FRAMES_BUCKET = "loupe-frames"
MODELS_BUCKET = "loupe-models"
DATASETS_BUCKET = "loupe-datasets"
BUCKETS = (FRAMES_BUCKET, MODELS_BUCKET, DATASETS_BUCKET)
_SCHEME = "s3://"
# Anyone may publish a reference, so what S3 would refuse for ever is refused here: a bucket name it
# does not allow, or control characters.
_ADDRESS = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[^\x00-\x1f\x7f]*)?")
# Twice a part and more goes in parts, two at a time: a server that checks signatures holds what it gets in
# one piece in memory, and the one-machine one has 256 MB in all.
_UPLOAD: dict[str, Any] = {"chunksize": 10 << 20, "max_concurrency": 2}


class ObjectStore:
    """Objects under `s3://bucket/key`, wherever the bytes really are."""

    def __init__(self, filesystem: Any, root: str = "") -> None:
        """Use an fsspec file system whose buckets are folders of `root`."""
        self._files = filesystem
        self._root = root

    def put(self, uri: str, data: bytes) -> None:
        """Write an object whole, replacing one of the same name.

        Raises:
            StoreUnavailable: the store did not take it.
        """
        path = self._path(uri)
        try:
            if self._root:
                self._files.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
            self._files.pipe_file(path, data, **(_UPLOAD if is_s3(self._files) else {}))
        except Exception as error:
            raise StoreUnavailable(f"{uri} could not be written: {error}", uri=uri) from error

    def get(self, uri: str) -> bytes:
        """Read an object.

        Raises:
            UnknownObject: there is none of that name.
            StoreUnavailable: the store did not answer.
        """
        path = self._path(uri)
        try:
            data: bytes = self._files.cat_file(path)
        except FileNotFoundError as error:
            raise UnknownObject(f"{uri} does not exist.", uri=uri) from error
        except Exception as error:
            raise _unavailable(uri, "could not be read", error) from error
        return data

    def exists(self, uri: str) -> bool:
        """Tell whether an object exists.

        Raises:
            StoreUnavailable: the store did not answer.
        """
        path = self._path(uri)
        try:
            self._files.invalidate_cache()
            return bool(self._files.exists(path))
        except Exception as error:
            raise StoreUnavailable(f"{uri} could not be looked up: {error}", uri=uri) from error

    def list(self, prefix_uri: str) -> tuple[str, ...]:
        """Return the URIs of all objects under a prefix folder, sorted.

        Raises:
            StoreUnavailable: the store did not answer.
        """
        folder = self._path(prefix_uri)
        try:
            self._files.invalidate_cache()
            paths: Iterable[str] = self._files.find(folder)
        except FileNotFoundError:
            return ()
        except Exception as error:
            raise StoreUnavailable(f"{prefix_uri} could not be listed: {error}") from error
        cut = len(self._root.strip("/")) + 1 if self._root else 0
        return tuple(sorted(_SCHEME + path.strip("/")[cut:] for path in paths))

    def entries(self, prefix_uri: str, *, skip: Collection[str] = ()) -> Iterator[ObjectEntry]:
        """Yield all objects under a prefix folder with size, time and ETag, in no promised order.

        `skip` names folders right below the prefix that are left out.

        Memory does not grow with their number on S3; elsewhere it holds one folder. A bucket that does not
        exist has none: see `has_bucket`.

        Raises:
            StoreUnavailable: the store did not answer; `details["is_refused"]`: its keys are not welcome.
        """
        folder = self._path(prefix_uri)
        cut = len(self._root.strip("/")) + 1 if self._root else 0
        try:
            self._files.invalidate_cache()
            for path, info in infos_under(self._files, folder, skip):
                yield entry_of(_SCHEME + path.strip("/")[cut:], info)
        except FileNotFoundError:
            return
        except Exception as error:
            raise _unavailable(prefix_uri, "could not be listed", error) from error

    def entry(self, uri: str) -> ObjectEntry:
        """Return size, time and ETag of one object.

        Raises:
            UnknownObject: there is none of that name.
            StoreUnavailable: the store did not answer.
        """
        path = self._path(uri)
        try:
            self._files.invalidate_cache()
            info = self._files.info(path)
        except FileNotFoundError as error:
            raise UnknownObject(f"{uri} does not exist.", uri=uri) from error
        except Exception as error:
            raise _unavailable(uri, "could not be looked up", error) from error
        if info.get("type") == "directory":
            raise UnknownObject(f"{uri} is no object.", uri=uri)
        return entry_of(uri, info)

    def has_bucket(self, uri: str) -> bool:
        """Tell whether the bucket of an address exists and may be seen.

        Raises:
            StoreUnavailable: the store did not answer.
        """
        bucket = self._path("/".join(uri.split("/")[:3]))
        try:
            self._files.invalidate_cache()
            return bucket_exists(self._files, bucket)
        except Exception as error:
            raise _unavailable(uri, "could not be looked up", error) from error

    def delete(self, uri: str) -> None:
        """Delete an object; harmless when there is none of that name.

        Raises:
            StoreUnavailable: the store did not do it.
        """
        path = self._path(uri)
        try:
            self._files.rm_file(path)
        except FileNotFoundError:
            return
        except Exception as error:
            raise _unavailable(uri, "could not be deleted", error) from error

    def move(self, uri: str, to_uri: str, *, etag: str) -> None:
        """Copy an object to another name and delete it, if it is still the one with that ETag.

        A copy that stays because the deletion failed is overwritten by the next try.

        Raises:
            UnknownObject: there is none of that name, or its bytes were replaced since.
            StoreUnavailable: the store did not do it.
        """
        path, to_path = self._path(uri), self._path(to_uri)
        try:
            move_object(self._files, path, to_path, etag)
        except FileNotFoundError as error:
            raise UnknownObject(f"{uri} is gone or was replaced.", uri=uri) from error
        except Exception as error:
            raise _unavailable(uri, "could not be moved", error) from error

    def put_image(self, bucket: str, data: bytes) -> ImageReference:
        """Keep an image under its SHA-256; equal bytes are kept once.

        Raises:
            StoreUnavailable: the store did not take it.
        """
        reference = image_reference(bucket, data)
        self.put(reference.uri, data)
        return reference

    def get_image(self, reference: ImageReference) -> bytes:
        """Read an image and verify its hash.

        Raises:
            HashMismatch: the bytes are not those referred to.
            UnknownObject: the object is gone.
            StoreUnavailable: the store did not answer.
        """
        data = self.get(reference.uri)
        found = hashlib.sha256(data).hexdigest()
        if found != reference.sha256.lower():
            raise HashMismatch(
                f"{reference.uri} has the SHA-256 {found}, its reference says {reference.sha256}.",
                uri=reference.uri,
            )
        return data

    def upload_folder(self, folder: Path, prefix_uri: str) -> None:
        """Write all files of a folder under a prefix; `manifest.json` comes last, as its seal.

        Raises:
            StoreUnavailable: the store did not take a file.
        """
        files = sorted((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.name == "manifest.json")
        for path in files:
            self.put(f"{prefix_uri}/{path.relative_to(folder).as_posix()}", path.read_bytes())

    def download_folder(self, prefix_uri: str, folder: Path) -> None:
        """Read all objects under a prefix into a folder.

        Raises:
            UnknownObject: nothing is there.
            StoreUnavailable: the store did not answer.
        """
        uris = self.list(prefix_uri)
        if not uris:
            raise UnknownObject(f"{prefix_uri} is empty or does not exist.", uri=prefix_uri)
        for uri in uris:
            path = folder / uri.removeprefix(prefix_uri).lstrip("/")
            if not path.resolve().is_relative_to(folder.resolve()):
                raise UnknownObject(f"{uri} would be written outside of the folder.", uri=uri)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self.get(uri))

    def _path(self, uri: str) -> str:
        if not _ADDRESS.fullmatch(uri) or ".." in uri.split("/"):
            raise UnknownObject(f"{uri!r} is not an address of the form s3://bucket/key.", uri=uri)
        path = uri.removeprefix(_SCHEME)
        return f"{self._root}/{path}" if self._root else path


def _unavailable(uri: str, what: str, error: Exception) -> StoreUnavailable:
    is_refused = isinstance(error, PermissionError)
    return StoreUnavailable(f"{uri} {what}: {error}", uri=uri, is_refused=is_refused)


def image_reference(bucket: str, data: bytes) -> ImageReference:
    """Return where an image is kept, or will be: under its SHA-256."""
    sha256 = hashlib.sha256(data).hexdigest()
    return ImageReference(f"{_SCHEME}{bucket}/sha256/{sha256[:2]}/{sha256}", sha256, len(data))


def s3_store(endpoint_url: str | None, key: str | None, secret: str | None, region: str) -> ObjectStore:
    """Return a store on any S3; without key the client library's own sources of credentials count."""
    filesystem = fsspec.filesystem(
        "s3",
        key=key,
        secret=secret,
        endpoint_url=endpoint_url,
        # S3 servers other than Amazon's do not know the newer checksum headers; path addressing
        # spares them wildcard names.
        config_kwargs={
            "s3": {"addressing_style": "path"},
            "request_checksum_calculation": "when_required",
            "response_checksum_validation": "when_required",
            "connect_timeout": 3,
            "read_timeout": 20,
            "retries": {"max_attempts": 2},
        },
        client_kwargs={"region_name": region},
        skip_instance_cache=True,
        use_listings_cache=False,
    )
    return ObjectStore(filesystem)


def folder_store(folder: Path) -> ObjectStore:
    """Return a store on a local folder, one sub-folder per bucket: what the one-machine S3 serves."""
    folder.mkdir(parents=True, exist_ok=True)
    return ObjectStore(fsspec.filesystem("file", skip_instance_cache=True), str(folder.resolve()))


def memory_store() -> ObjectStore:
    """Return a store in memory, for tests; each is its own."""
    filesystem = fsspec.filesystem("memory", skip_instance_cache=True)
    filesystem.store, filesystem.pseudo_dirs = {}, [""]
    return ObjectStore(filesystem, "/memory")
