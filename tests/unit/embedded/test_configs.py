"""Configuration texts: limits agree with the topics, awkward paths survive."""

from __future__ import annotations

from pathlib import Path

from services.domain.topics import TOPICS
from services.embedded.configs import kafka_properties, property_value, redis_conf, write_if_changed


def test_the_broker_takes_the_largest_record_of_every_topic() -> None:
    text = kafka_properties(port=1, controller_port=2, log_folder=Path("/k"))
    properties = dict(line.split("=", 1) for line in text.splitlines())
    largest = max(topic.max_message_bytes for topic in TOPICS)
    assert int(properties["message.max.bytes"]) >= largest
    assert int(properties["replica.fetch.max.bytes"]) >= largest


def test_servers_bind_to_loopback() -> None:
    text = kafka_properties(port=1, controller_port=2, log_folder=Path("/k"))
    listeners = next(line for line in text.splitlines() if line.startswith("listeners="))
    assert listeners == "listeners=PLAINTEXT://127.0.0.1:1,CONTROLLER://127.0.0.1:2"
    assert redis_conf(port=1, password="p", folder=Path("/r")).startswith("bind 127.0.0.1\n")


def test_java_reads_a_path_beyond_ascii() -> None:
    # U+1F4F7 is outside the basic plane: two units in UTF-16.
    assert property_value(Path("/für/a\\b/📷")) == "/f\\u00fcr/a\\u005cb/\\ud83d\\udcf7"


def test_a_configuration_file_is_private_and_written_only_when_it_changes(tmp_path: Path) -> None:
    path = write_if_changed(tmp_path / "config" / "a.conf", "secret")
    assert path.stat().st_mode & 0o077 == 0
    before = path.stat().st_mtime_ns
    assert write_if_changed(path, "secret").stat().st_mtime_ns == before
    assert write_if_changed(path, "other").read_text() == "other"
