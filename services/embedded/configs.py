"""Configuration texts of the third-party servers, from plain values. Writes nothing.

Numbers come from measurements on two cores; each comment says what a number buys.
"""

from __future__ import annotations

from pathlib import Path

from services.domain.topics import RECORD_LIMIT_BYTES

# Flags that decide what an ahead-of-time cache looks like; the same when it is made and when it is used.
# The rest silences what newer Java says of older libraries.
KAFKA_JVM_FLAGS = (
    "-Xmx256m", "-Xms64m", "-XX:+UseSerialGC", "-XX:MaxDirectMemorySize=128m", "-XX:TieredStopAtLevel=1",
    "--sun-misc-unsafe-memory-access=allow", "--enable-native-access=ALL-UNNAMED", "-Xlog:aot*=error",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd HH:mm:ss.SSS",
)  # fmt: skip
S3_JVM_FLAGS = ("-Xmx256m", "-Xms32m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")

# A single broker: every internal topic has one copy. The short broker session lets a broker that was
# killed come back in 2.4 s instead of 11 s; the small cleaner buffer saves 120 MB of heap.
_KAFKA = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller_port}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={log_folder}
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=1
auto.create.topics.enable=false
group.initial.rebalance.delay.ms=0
message.max.bytes={record_limit_bytes}
replica.fetch.max.bytes={record_limit_bytes}
log.segment.bytes=67108864
log.cleaner.dedupe.buffer.size=4194304
log.cleaner.threads=1
num.network.threads=2
num.io.threads=4
background.threads=2
broker.heartbeat.interval.ms=500
broker.session.timeout.ms=1500
"""


def kafka_properties(*, port: int, controller_port: int, log_folder: Path) -> str:
    """Return `server.properties` of a single broker that is its own controller."""
    return _KAFKA.format(
        port=port,
        controller_port=controller_port,
        log_folder=property_value(log_folder),
        record_limit_bytes=RECORD_LIMIT_BYTES,
    )


def redis_conf(*, port: int, password: str, folder: Path) -> str:
    """Return `redis.conf` of a cache: nothing on disk, bounded memory."""
    return (
        f'bind 127.0.0.1\nport {port}\nrequirepass {password}\ndir "{folder}"\ndaemonize no\n'
        # Renaming itself would overwrite its environment, and with it the mark that `down` looks for.
        "set-proc-title no\n"
        'save ""\nappendonly no\nmaxmemory 64mb\nmaxmemory-policy allkeys-lru\n'
    )


def s3proxy_properties(*, port: int, key: str, secret: str, folder: Path) -> str:
    """Return S3Proxy's properties: a folder of buckets, Signature V4 required."""
    return (
        f"s3proxy.endpoint=http://127.0.0.1:{port}\ns3proxy.authorization=aws-v2-or-v4\n"
        f"s3proxy.identity={key}\ns3proxy.credential={secret}\n"
        f"jclouds.provider=filesystem-nio2\njclouds.filesystem.basedir={property_value(folder)}\n"
        "jclouds.identity=local\njclouds.credential=local\n"
    )


# It would log every request at DEBUG otherwise.
LOGBACK = """\
<configuration>
  <appender name="out" class="ch.qos.logback.core.ConsoleAppender">
    <encoder><pattern>%d{ISO8601} %-5level %logger{24} %msg%n</pattern></encoder>
  </appender>
  <root level="WARN"><appender-ref ref="out"/></root>
</configuration>
"""


def property_value(path: Path) -> str:
    """Return a path as Java's property files, which are Latin-1, want it."""
    units = str(path).encode("utf-16-be")
    codes = [int.from_bytes(units[i : i + 2]) for i in range(0, len(units), 2)]
    return "".join(chr(code) if code < 0x7F and chr(code) != "\\" else f"\\u{code:04x}" for code in codes)


def write_if_changed(path: Path, text: str) -> Path:
    """Write a configuration file, readable by its owner alone, and return its path."""
    if not path.exists() or path.read_text() != text:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        path.write_text(text)
    return path
