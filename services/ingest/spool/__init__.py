"""The spool: what a camera gave is on disk before anything else happens, and leaves it once Kafka has it.

    spool = Spool(folder, max_bytes=..., clock=clock)        one process owns a folder
    sender = Sender(spool, open_producer, clock, metrics=...)  one a process; `start`, `flush`, `stop`
    sender.start()
    Ingester(CameraSpec(...), spool, clock, store=store).run(stop, on_progress)   a thread a camera
    sender.flush(timeout_s); sender.stop(); spool.close()

Ingester, CameraSpec and Progress are in `services.ingest.pipeline`.
"""

from services.ingest.spool.camera_spool import CameraSpool
from services.ingest.spool.sender import Sender
from services.ingest.spool.spool import Leftover, Spool

__all__ = ["CameraSpool", "Leftover", "Sender", "Spool"]
