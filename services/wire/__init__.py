"""Domain types to bytes and back: protobuf, CloudEvents headers, JSON. One file per message.

Knows Kafka's record shape (`record`), not Kafka itself. `gen` is generated from `proto/`.
"""
