"""librdkafka's mock cluster in a process of its own: the Kafka protocol on a loopback port, in memory, 4 partitions a topic.

It is not a broker: no disk, no replication, no retention, no authentication, no TLS (docs/adr/0014-stream.md says what that leaves open).
Started as a program it prints its address and holds the cluster until its input is closed.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from pipeline_assets.settings import PROJECT_ROOT

PARTITIONS = 4  # what the mock gives to a topic that is created by its first message


@contextmanager
def running() -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The address of a cluster, and the process that holds it."""
    command = [sys.executable, "-m", "pipeline_assets_tests.broker"]
    with subprocess.Popen(
        command, cwd=PROJECT_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as holder:
        assert holder.stdout is not None
        try:
            yield holder.stdout.readline().strip(), holder
        finally:
            holder.kill()


def produce(servers: str, topic: str, messages: Iterable[Any], partition: int | None = None) -> None:
    """Send messages in order, round robin over the partitions unless one is given; mappings are written as JSON."""
    from confluent_kafka import Producer

    producer = Producer({"bootstrap.servers": servers, "log_level": "2"})
    for at, message in enumerate(messages):
        value = json.dumps(message, default=datetime.isoformat) if isinstance(message, Mapping) else message
        producer.produce(topic, value, partition=at % PARTITIONS if partition is None else partition)
    assert producer.flush(20) == 0


def hold() -> None:
    """Start the cluster, print its address, wait."""
    from confluent_kafka import Producer

    cluster = Producer({"test.mock.num.brokers": 3, "bootstrap.servers": "replaced", "log_level": "2"})
    brokers = cluster.list_topics(timeout=10).brokers.values()
    print(",".join(f"{broker.host}:{broker.port}" for broker in brokers), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    hold()
