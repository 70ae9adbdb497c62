"""A producer outlives a broker that stays away longer than it waits for an acknowledgement."""

from __future__ import annotations

import signal

import pytest

from services.adapters.broker.kafka import KafkaBrokerProducer
from services.domain.errors import BrokerUnavailable
from services.domain.frame import RecordPosition
from services.wire.record import OutRecord
from tests.poll import poll_until
from tests.servers import Servers

pytestmark = [pytest.mark.real, pytest.mark.timeout(180)]
RECORD = OutRecord("loupe.events", b"camera", b"value")


def test_a_producer_that_gave_a_record_up_sends_again_once_the_broker_is_back(own_servers: Servers) -> None:
    with own_servers.running("kafka") as broker:
        producer = KafkaBrokerProducer(own_servers.addresses.kafka_bootstrap, delivery_timeout_s=2)
        before = producer.send(RECORD).result(20)
        broker.send_signal(signal.SIGSTOP)
        try:
            with pytest.raises(BrokerUnavailable):
                producer.send(RECORD).result(30)
        finally:
            broker.send_signal(signal.SIGCONT)

        def sent() -> RecordPosition | None:
            try:
                return producer.send(RECORD).result(5)
            except BrokerUnavailable:
                return None

        after = poll_until(sent, deadline_s=60, every_s=0.5, what="a record goes out again")
        assert after is not None
        assert after.offset > before.offset
        producer.close()
