"""Manifests to bytes and back."""

from __future__ import annotations

import json

import pytest

from services.domain.errors import CorruptModel
from services.trainer.fit import FittedModel
from services.wire.manifest import decode_manifest, encode_manifest


def test_manifest_survives_the_wire(fitted: FittedModel) -> None:
    data = encode_manifest(fitted.manifest)
    assert decode_manifest(data) == fitted.manifest
    assert encode_manifest(decode_manifest(data)) == data


def test_unknown_keys_of_later_writers_are_ignored(fitted: FittedModel) -> None:
    document = json.loads(encode_manifest(fitted.manifest))
    document["reviewed_by"] = "somebody"
    assert decode_manifest(json.dumps(document).encode()) == fitted.manifest


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b"\xff", b'{"format_version": 99}'])
def test_what_is_no_manifest_is_refused(data: bytes) -> None:
    with pytest.raises(CorruptModel):
        decode_manifest(data)
