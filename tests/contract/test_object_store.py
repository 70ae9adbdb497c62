"""S3, the folder that the one-machine S3 serves, and memory do the same."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest

from services.adapters.object_store import ObjectStore, folder_store, memory_store, s3_store
from services.adapters.object_store.listing import infos_under
from services.adapters.object_store.store import DATASETS_BUCKET, FRAMES_BUCKET, MODELS_BUCKET
from services.domain.errors import HashMismatch, StoreUnavailable, UnknownObject
from services.domain.frame import ImageReference
from services.domain.topics import CLAIM_LIMIT_BYTES
from tests.servers import S3Access


@pytest.fixture(params=["memory", "folder", pytest.param("s3", marks=pytest.mark.real)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    if request.param == "memory":
        return memory_store()
    if request.param == "folder":
        return folder_store(tmp_path / "objects")
    access: S3Access = request.getfixturevalue("s3_access")
    return s3_store(access.endpoint, access.key, access.secret, access.region)


@pytest.fixture
def prefix() -> str:
    return f"s3://{MODELS_BUCKET}/test-{uuid4().hex[:8]}"


def test_an_object_comes_back_as_it_was(store: ObjectStore, prefix: str) -> None:
    store.put(f"{prefix}/one", b"\x00\xff" * 100)
    assert store.get(f"{prefix}/one") == b"\x00\xff" * 100
    store.put(f"{prefix}/one", b"replaced")
    assert store.get(f"{prefix}/one") == b"replaced"


def test_an_empty_object_is_an_object(store: ObjectStore, prefix: str) -> None:
    store.put(f"{prefix}/empty", b"")
    assert store.get(f"{prefix}/empty") == b""
    assert store.exists(f"{prefix}/empty")


def test_what_is_not_there_is_unknown(store: ObjectStore, prefix: str) -> None:
    assert not store.exists(f"{prefix}/none")
    with pytest.raises(UnknownObject):
        store.get(f"{prefix}/none")
    with pytest.raises(UnknownObject):
        store.download_folder(prefix, Path("/nowhere"))
    assert store.list(prefix) == ()


@pytest.mark.parametrize(
    "uri",
    [
        "http://host/key",
        "s3://bucket/../../etc/passwd",
        "key",
        "s3://B ad/key",
        "s3://ab/key",
        "s3://no-such-bucket-here/key",
        "s3://loupe-frames/a\x00b",
        "",
    ],
)
def test_an_address_that_is_none_is_unknown(store: ObjectStore, uri: str) -> None:
    with pytest.raises(UnknownObject):
        store.get(uri)


def test_listing_names_all_below_a_folder(store: ObjectStore, prefix: str) -> None:
    for name in ("b", "a/x", "a/y"):
        store.put(f"{prefix}/{name}", b"1")
    assert store.list(prefix) == (f"{prefix}/a/x", f"{prefix}/a/y", f"{prefix}/b")
    assert store.list(f"{prefix}/a") == (f"{prefix}/a/x", f"{prefix}/a/y")


def test_entries_tell_size_time_and_whether_bytes_were_replaced(store: ObjectStore, prefix: str) -> None:
    before = datetime.now(UTC) - timedelta(seconds=5)
    for name in ("b", "a/x", "a/y"):
        store.put(f"{prefix}/{name}", name.encode())
    store.put(f"{prefix}-other/z", b"1")
    entries = {entry.uri: entry for entry in store.entries(prefix)}
    assert sorted(entries) == [f"{prefix}/a/x", f"{prefix}/a/y", f"{prefix}/b"]
    one = entries[f"{prefix}/a/x"]
    assert one.size_bytes == 3
    assert before < one.modified_at < datetime.now(UTC) + timedelta(seconds=5)
    store.put(one.uri, b"other bytes")
    (other,) = (entry for entry in store.entries(f"{prefix}/a") if entry.uri == one.uri)
    assert other.etag != one.etag
    assert list(store.entries(f"{prefix}/none")) == []


def test_a_listing_goes_on_where_a_page_ends(store: ObjectStore, prefix: str) -> None:
    for number in range(7):
        store.put(f"{prefix}/{number}", b"1")
    path = store._path(prefix)
    names = [found.rsplit("/", 1)[1] for found, _ in infos_under(store._files, path, page_size=3)]
    assert sorted(names) == [str(number) for number in range(7)]


def test_folders_that_are_skipped_are_not_listed(store: ObjectStore, prefix: str) -> None:
    names = ["a", "done-not", "done/2026/z", "done0", "sub/done/c", "z"]
    for name in [*names, *(f"done/{number}" for number in range(9))]:
        store.put(f"{prefix}/{name}", b"1")
    path = store._path(prefix)
    # Small pages, so that one ends inside of the folder.
    found = [name.split(path, 1)[1][1:] for name, _ in infos_under(store._files, path, ("done",), 3)]
    wanted = ["a", "done-not", "done0", "sub/done/c", "z"]
    assert sorted(found) == wanted
    entries = store.entries(prefix, skip=("done", "none"))
    assert sorted(entry.uri.removeprefix(f"{prefix}/") for entry in entries) == wanted


def test_a_bucket_is_there_or_not(store: ObjectStore, prefix: str) -> None:
    store.put(f"{prefix}/one", b"1")
    assert store.has_bucket(prefix)
    assert not store.has_bucket("s3://no-such-bucket-here/x")
    assert list(store.entries("s3://no-such-bucket-here/x")) == []


def test_deleting_is_harmless_twice(store: ObjectStore, prefix: str) -> None:
    store.put(f"{prefix}/one", b"1")
    store.delete(f"{prefix}/one")
    store.delete(f"{prefix}/one")
    assert not store.exists(f"{prefix}/one")


def test_only_the_object_that_was_seen_is_moved(store: ObjectStore, prefix: str) -> None:
    store.put(f"{prefix}/one", b"seen")
    (seen,) = store.entries(prefix)
    store.put(f"{prefix}/one", b"replaced")
    with pytest.raises(UnknownObject):
        store.move(seen.uri, f"{prefix}/done/one", etag=seen.etag)
    (now,) = store.entries(prefix)
    store.move(now.uri, f"{prefix}/done/one", etag=now.etag)
    assert store.list(prefix) == (f"{prefix}/done/one",)
    assert store.get(f"{prefix}/done/one") == b"replaced"
    with pytest.raises(UnknownObject):
        store.move(now.uri, f"{prefix}/done/one", etag=now.etag)


def test_an_image_is_kept_once_under_its_hash(store: ObjectStore) -> None:
    image = uuid4().bytes
    reference = store.put_image(FRAMES_BUCKET, image)
    assert store.put_image(FRAMES_BUCKET, image) == reference
    assert reference.sha256 in reference.uri
    assert store.get_image(reference) == image


def test_other_bytes_than_referred_to_are_refused(store: ObjectStore, prefix: str) -> None:
    store.put(f"{prefix}/image", b"changed")
    with pytest.raises(HashMismatch):
        store.get_image(ImageReference(f"{prefix}/image", "0" * 64, 7))


def test_images_of_a_hundred_megabytes_come_back_as_they_were(store: ObjectStore) -> None:
    for size_bytes in (20 << 20, CLAIM_LIMIT_BYTES):  # at the first size that goes in parts, and the largest
        data = np.random.default_rng(1).bytes(size_bytes)
        reference = store.put_image(DATASETS_BUCKET, data)
        assert store.get_image(reference) == data
        assert store.entry(reference.uri).size_bytes == size_bytes
        store.delete(reference.uri)


def test_what_one_object_is_like_can_be_asked(store: ObjectStore, prefix: str) -> None:
    store.put(f"{prefix}/one", b"four")
    found = store.entry(f"{prefix}/one")
    assert (found.uri, found.size_bytes) == (f"{prefix}/one", 4)
    assert abs((datetime.now(UTC) - found.modified_at).total_seconds()) < 60
    for nothing in (f"{prefix}/two", prefix):
        with pytest.raises(UnknownObject):
            store.entry(nothing)


def test_a_folder_travels(store: ObjectStore, prefix: str, tmp_path: Path) -> None:
    made = tmp_path / "made"
    (made / "golden").mkdir(parents=True)
    (made / "manifest.json").write_text("{}")
    (made / "golden" / "input.npy").write_bytes(b"123")
    store.upload_folder(made, prefix)
    store.download_folder(prefix, tmp_path / "got")
    assert (tmp_path / "got" / "manifest.json").read_text() == "{}"
    assert (tmp_path / "got" / "golden" / "input.npy").read_bytes() == b"123"


def test_a_store_that_is_gone_is_unavailable() -> None:
    gone = s3_store("http://127.0.0.1:1", "key", "secret", "us-east-1")
    with pytest.raises(StoreUnavailable):
        gone.get(f"s3://{FRAMES_BUCKET}/one")


def test_a_wrong_key_is_refused(s3_access: S3Access) -> None:
    store = s3_store(s3_access.endpoint, s3_access.key, "wrong", s3_access.region)
    with pytest.raises(StoreUnavailable):
        store.put(f"s3://{FRAMES_BUCKET}/one", b"1")


def test_wrong_keys_are_told_from_a_store_that_is_away(s3_access: S3Access) -> None:
    store = s3_store(s3_access.endpoint, s3_access.key, "wrong", s3_access.region)
    with pytest.raises(StoreUnavailable) as refused:
        list(store.entries(f"s3://{FRAMES_BUCKET}/x"))
    assert refused.value.details["is_refused"] is True
    gone = s3_store("http://127.0.0.1:1", "key", "secret", "us-east-1")
    with pytest.raises(StoreUnavailable) as away:
        list(gone.entries(f"s3://{FRAMES_BUCKET}/x"))
    assert away.value.details["is_refused"] is False
