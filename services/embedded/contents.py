"""What fresh servers must hold before our processes start: topics, buckets, tables. Idempotent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from services.domain.topics import TOPICS, Topic


def create_topics(bootstrap: str, topics: Sequence[Topic] = TOPICS) -> None:
    """Create the topics that the broker lacks, with their retention and size limits."""
    from kafka import KafkaAdminClient
    from kafka.admin import NewTopic

    admin = KafkaAdminClient(bootstrap_servers=bootstrap)
    try:
        known = set(admin.list_topics())
        wanted = [
            NewTopic(
                name=topic.name,
                num_partitions=topic.partitions,
                replication_factor=1,
                topic_configs={
                    "retention.ms": str(topic.retention_s * 1000),
                    # Kafka counts bytes per partition.
                    "retention.bytes": str(topic.retention_bytes // topic.partitions),
                    "max.message.bytes": str(topic.max_message_bytes),
                },
            )
            for topic in topics
            if topic.name not in known
        ]
        if wanted:
            admin.create_topics(wanted)
            admin.wait_for_topics([topic.name for topic in wanted])
    finally:
        admin.close()


def create_buckets(endpoint: str, key: str, secret: str, region: str) -> None:
    """Create the buckets that the object store lacks."""
    from services.adapters.object_store.store import BUCKETS

    client = s3_client(endpoint, key, secret, region)
    known = {bucket["Name"] for bucket in client.list_buckets()["Buckets"]}
    for bucket in BUCKETS:
        if bucket not in known:
            client.create_bucket(Bucket=bucket)


def s3_client(endpoint: str, key: str, secret: str, region: str) -> Any:
    """Return a boto3 client for the local S3 server, which never goes through a proxy."""
    import boto3
    from botocore.config import Config

    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id=key,
        aws_secret_access_key=secret,
        region_name=region,
        config=Config(
            connect_timeout=2,
            read_timeout=5,
            retries={"max_attempts": 1},
            proxies={},
            s3={"addressing_style": "path"},
        ),
    )


def migrate_database(url: str) -> None:
    """Bring the tables to the present schema."""
    from services.adapters.database import migrate

    migrate(url)
