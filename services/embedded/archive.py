"""The broker's ahead-of-time cache: classes parsed and linked once at set-up, mapped at every start.

Cuts the start from 1.5 s to 0.6 s. The cache belongs to one Java and one class path; Java itself checks
that and goes on without it when they differ.
"""

from __future__ import annotations

import subprocess
import tempfile
import time
from pathlib import Path

from services.domain.errors import MissingPart
from services.embedded.configs import KAFKA_JVM_FLAGS, kafka_properties, write_if_changed
from services.embedded.home import free_ports, new_cluster_id
from services.embedded.probes import kafka_answers

_DEADLINE_S = 60.0


def make_archive(java: Path, class_path: str, folder: Path) -> None:
    """Run a broker until it serves, stop it, and leave `kafka.aot` in the folder.

    Raises:
        MissingPart: the broker did not start or wrote no archive.
    """
    archive = folder / "kafka.aot"
    with tempfile.TemporaryDirectory(prefix="loupe-") as scratch:
        port, controller_port = free_ports(2, seed=scratch)
        properties = write_if_changed(
            Path(scratch, "server.properties"),
            kafka_properties(port=port, controller_port=controller_port, log_folder=Path(scratch, "kafka")),
        )
        format_storage(java, class_path, properties, new_cluster_id())
        arguments = [*KAFKA_JVM_FLAGS, f"-XX:AOTCacheOutput={archive}", "-cp", class_path]
        command = [str(java), *arguments, "kafka.Kafka", str(properties)]
        with (
            Path(scratch, "log").open("w+") as log,
            subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT) as broker,
        ):
            is_up = _serves_in_time(f"127.0.0.1:{port}", broker)
            broker.terminate()
            broker.wait(_DEADLINE_S)
            log.seek(0)
            if not is_up or not archive.exists():
                raise MissingPart(f"the ahead-of-time cache of Kafka was not made: {log.read()[-600:]}")


def format_storage(java: Path, class_path: str, properties: Path, cluster_id: str) -> None:
    """Prepare the broker's data folder, as Kafka asks before its first start.

    Raises:
        MissingPart: Java or the jars do not work.
    """
    tool = [str(java), "-XX:TieredStopAtLevel=1", "-cp", class_path, "kafka.tools.StorageTool"]
    command = [*tool, "format", "-t", cluster_id, "-c", str(properties)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise MissingPart(f"Kafka's storage cannot be formatted: {(done.stdout + done.stderr)[-600:]}")


def _serves_in_time(bootstrap: str, broker: subprocess.Popen[bytes]) -> bool:
    end_monotonic_s = time.monotonic() + _DEADLINE_S
    while time.monotonic() < end_monotonic_s and broker.poll() is None:
        if kafka_answers(bootstrap):
            return True
        time.sleep(0.2)
    return False
