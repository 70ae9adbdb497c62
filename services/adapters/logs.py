"""Logging of a process: one line per record on standard error, UTC, with the process's name."""

from __future__ import annotations

import logging
import time


def configure_logging(process: str, level: int = logging.INFO) -> None:
    """Set up the root logger of `process`; called once, by its `__main__`."""
    handler = logging.StreamHandler()
    formatter = logging.Formatter(
        f"%(asctime)s.%(msecs)03dZ {process} %(levelname)s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%S"
    )
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    logging.basicConfig(level=level, handlers=[handler], force=True)
    # The Kafka clients report every reconnect at INFO; their warnings are enough.
    for noisy in ("kafka", "aiokafka", "botocore", "aiobotocore"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
