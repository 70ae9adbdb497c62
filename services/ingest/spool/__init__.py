"""The spool: a write-ahead outbox on disk between cameras and Kafka; one process owns its folder.

In: frames with the next sequence of their camera, and sequences that were let go (`CameraSpool`).
Out: `loupe.frames` and `loupe.ledger`, by a `Sender`.
Order: per camera; frames of earlier runs first.
Guarantee: what `accept` or `shed` returned from survives the process and the machine, with its sequence, its
receipt and what the ledger is to hear of it, all in one transaction. A frame leaves once Kafka has it; a
ledger entry is on disk before it is sent, so it is sent again as it was.
Back-pressure: a camera has an equal share of `max_bytes`; when that is full its policy says who waits or
goes. What may have reached Kafka is never dropped.

    spool = Spool(folder, clock=clock, max_bytes=…)
    sender = Sender(spool, open_producer, clock, metrics=…); sender.start()
    Ingester(CameraSpec(…), spool, clock, store=store).run(stop, on_progress)     a thread a camera
    sender.flush(timeout_s); sender.stop(); spool.close()
"""

from services.ingest.spool.camera_spool import CameraSpool
from services.ingest.spool.sender import Sender
from services.ingest.spool.spool import Leftover, Spool

__all__ = ["CameraSpool", "Leftover", "Sender", "Spool"]
