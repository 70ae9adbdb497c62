"""The test servers are what they say: real, filled, and answering."""

from __future__ import annotations

import psycopg
import redis
from kafka import KafkaAdminClient

from services.adapters.object_store.store import BUCKETS
from services.domain.topics import TOPICS
from services.embedded.contents import s3_client
from services.embedded.probes import http_answers
from tests.servers import S3Access, TritonAccess


def test_kafka_has_all_topics_with_their_limits(kafka_bootstrap: str) -> None:
    admin = KafkaAdminClient(bootstrap_servers=kafka_bootstrap)
    try:
        assert {topic.name for topic in TOPICS} <= set(admin.list_topics())
    finally:
        admin.close()


def test_redis_keeps_a_value(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        client.set("answer", 42, ex=60)
        assert client.get("answer") == b"42"


def test_s3_has_the_buckets(s3_access: S3Access) -> None:
    client = s3_client(s3_access.endpoint, s3_access.key, s3_access.secret, s3_access.region)
    assert set(BUCKETS) <= {bucket["Name"] for bucket in client.list_buckets()["Buckets"]}


def test_postgres_gives_every_test_an_empty_database(postgres_url: str) -> None:
    with psycopg.connect(postgres_url.replace("+psycopg", "")) as connection:
        row = connection.execute("select count(*) from pg_tables where schemaname = 'public'").fetchone()
    assert row == (0,)


def test_triton_is_ready(triton_access: TritonAccess) -> None:
    assert http_answers(f"{triton_access.http}/v2/health/ready")
