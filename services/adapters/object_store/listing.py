"""What lies under a prefix, with size, time of change and ETag, in memory that does not grow with it.

S3 is read page by page; folders and the memory store, which have no pages, folder by folder. Paths here
are the file system's own; `store` makes addresses of them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

# S3's own limit for a page.
_PAGE = 1000
_NEVER = datetime.fromtimestamp(0, UTC)


@dataclass(frozen=True, slots=True)
class ObjectEntry:
    """An object as a listing tells it.

    Attributes:
        uri: its address.
        size_bytes: length.
        modified_at: aware UTC; S3 knows whole seconds.
        etag: differs when the object's bytes were replaced.
    """

    uri: str
    size_bytes: int
    modified_at: datetime
    etag: str


def is_s3(filesystem: Any) -> bool:
    """Tell whether an fsspec file system is S3."""
    return "s3" in filesystem.protocol


def infos_under(
    filesystem: Any, path: str, skip: Collection[str] = (), page_size: int = _PAGE
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield path and details of every object below a folder; in S3's order, or a folder at a time.

    `skip` names folders right below it that are left out, and hardly read.
    """
    if is_s3(filesystem):
        yield from _s3_pages(filesystem, path, skip, page_size)
        return
    is_top = True
    for folder, below, files in filesystem.walk(path, detail=True):
        if is_top:
            for name in skip:
                below.pop(name, None)
            is_top = False
        for name, info in files.items():
            yield f"{folder}/{name}", info


def _s3_pages(
    filesystem: Any, path: str, skip: Collection[str], page_size: int
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    bucket, _, prefix = path.partition("/")
    prefix = prefix.rstrip("/") + "/" if prefix else ""
    skipped = tuple(f"{prefix}{name}/" for name in skip)
    asked: dict[str, Any] = {"Bucket": bucket, "MaxKeys": page_size, "Prefix": prefix}
    while True:
        page = filesystem.call_s3("list_objects_v2", **asked)
        last = ""
        for info in page.get("Contents", ()):
            last = info["Key"]
            # Some tools make folders as empty objects whose names end like this.
            if not last.endswith("/") and not last.startswith(skipped):
                yield f"{bucket}/{last}", info
        if not page.get("IsTruncated"):
            return
        left_out = next((folder for folder in skipped if last.startswith(folder)), None)
        if left_out:
            # Nothing sorts behind this but what lies outside of the folder.
            asked["StartAfter"] = left_out + chr(0x10FFFF)
            asked.pop("ContinuationToken", None)
        else:
            asked["ContinuationToken"] = page["NextContinuationToken"]


def bucket_exists(filesystem: Any, bucket: str) -> bool:
    """Tell whether a bucket exists; raises what the server says but for that it does not."""
    if not is_s3(filesystem):
        return bool(filesystem.exists(bucket))
    try:
        # The library's own question also asks for the bucket's region, which some servers know of any bucket.
        filesystem.call_s3("head_bucket", Bucket=bucket)
    except FileNotFoundError:
        return False
    return True


def move_object(filesystem: Any, path: str, to_path: str, etag: str) -> None:
    """Copy and delete an object, if it still has that ETag; raises FileNotFoundError otherwise.

    S3 compares while it copies; between that and the deletion it is taken at its word.
    """
    if not is_s3(filesystem):
        if entry_of(path, filesystem.info(path)).etag != etag:
            raise FileNotFoundError(path)
        filesystem.makedirs(to_path.rsplit("/", 1)[0], exist_ok=True)
        filesystem.cp_file(path, to_path)
        filesystem.rm_file(path)
        return
    bucket, _, key = path.partition("/")
    to_bucket, _, to_key = to_path.partition("/")
    source = {"Bucket": bucket, "Key": key}
    try:
        filesystem.call_s3(
            "copy_object", Bucket=to_bucket, Key=to_key, CopySource=source, CopySourceIfMatch=etag
        )
    except OSError as error:
        # The library has no error of its own for this answer; its cause is botocore's.
        code = getattr(error.__cause__, "response", {}).get("Error", {}).get("Code")
        if code in ("PreconditionFailed", "412"):
            raise FileNotFoundError(path) from error
        raise
    filesystem.rm_file(path)


def entry_of(uri: str, info: Mapping[str, Any]) -> ObjectEntry:
    """Return an object's entry from what its file system says of it."""
    size_bytes = int(info.get("Size", info.get("size", 0)))
    modified = info.get("LastModified", info.get("mtime", info.get("created")))
    modified_at = _NEVER
    if isinstance(modified, datetime):
        modified_at = modified.astimezone(UTC)
    elif modified is not None:
        modified_at = datetime.fromtimestamp(float(modified), UTC)
    etag = str(info.get("ETag", "")).strip('"') or f"{modified_at.timestamp():.6f}-{size_bytes}"
    return ObjectEntry(uri, size_bytes, modified_at, etag)
