"""Jar lists: complete pins, and no jar with other bytes than pinned."""

from __future__ import annotations

import hashlib
import re
import ssl
from pathlib import Path

import pytest

from services.embedded import jars
from services.embedded.jars import class_path, damaged_jars, read_pins
from services.embedded.parts import read_requirements


@pytest.mark.parametrize("name", ["kafka", "s3proxy"])
def test_every_jar_has_one_version_and_a_hash(name: str) -> None:
    pins = read_pins(name)
    assert set(pins.coordinates) <= set(pins.jars)
    artifacts = [jar.rsplit(":", 1)[0] for jar in pins.jars]
    assert len(artifacts) == len(set(artifacts))
    assert all(re.fullmatch("[0-9a-f]{64}", sha256) for sha256 in pins.jars.values())


def test_the_broker_and_its_client_library_are_of_one_version() -> None:
    pins = read_pins("kafka")
    versions = {jar.split(":")[2] for jar in pins.jars if jar.startswith("org.apache.kafka:")}
    assert versions == {pins.version}


def test_a_changed_jar_is_damaged_and_a_missing_one_too(tmp_path: Path) -> None:
    pins = read_pins("kafka")
    assert set(damaged_jars("kafka", tmp_path)) == set(pins.jars)
    (tmp_path / "kafka-clients-4.4.0.jar").write_bytes(b"not the jar")
    assert "org.apache.kafka:kafka-clients:4.4.0" in damaged_jars("kafka", tmp_path)
    assert hashlib.sha256(b"not the jar").hexdigest() not in pins.jars.values()


def test_the_class_path_has_a_fixed_order(tmp_path: Path) -> None:
    for name in ("b.jar", "a.jar", "notes.txt"):
        (tmp_path / name).touch()
    assert class_path(tmp_path) == f"{tmp_path}/a.jar:{tmp_path}/b.jar"


def test_the_backend_environment_has_numpy_1() -> None:
    """With numpy 2 tritonserver's Python backend returns tensors without data, and no error."""
    assert read_requirements("triton-backend")["numpy"] == "1.26.4"
    assert list(read_requirements("triton")) == ["nvidia-pytriton"]


def test_a_download_leaves_the_process_with_the_certificates_it_had() -> None:
    before = ssl.SSLContext
    with jars._maven():
        assert ssl.SSLContext is not before
    assert ssl.SSLContext is before


def test_a_download_that_ends_leaves_its_neighbour_the_machines_certificates() -> None:
    before = ssl.SSLContext
    first, second = jars._maven(), jars._maven()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert ssl.SSLContext is not before
    second.__exit__(None, None, None)
    assert ssl.SSLContext is before
