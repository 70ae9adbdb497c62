"""Reading and writing Kafka topics.

`protocol` says what callers may rely on, `kafka` is the real thing, `memory` the fake for tests.
"""

from services.adapters.broker.protocol import Consumer, Delivery, Partition, Producer

__all__ = ["Consumer", "Delivery", "Partition", "Producer"]
