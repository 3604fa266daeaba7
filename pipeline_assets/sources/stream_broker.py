"""The broker as the consumer sees it: partitions, bounds, messages; patience when it does not answer.

Belongs here: confluent-kafka and nothing of the lake. Partitions are assigned with explicit offsets; the broker's group offsets are
neither read nor written, because the positions that count are in the lake (stream_table.py).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import tenacity

from pipeline_assets.recommender.errors import ConfigurationError, SourceError
from pipeline_assets.sources.stream_messages import Message
from pipeline_assets.sources.stream_table import Place

if TYPE_CHECKING:
    from pipeline_assets.settings_stream import StreamSettings

_T = TypeVar("_T")
_ANSWER_SECONDS = 5.0  # for one request, which a stop cannot interrupt; a broker that needs longer is asked again
_FILE = "file:"  # an option's value that begins so is read from the file: secrets as files
# Memory of librdkafka's own queue. Its defaults hold 64 MB and ask for 50 MB at once; a consumer that lands batches gains nothing from it.
_MEMORY = {"queued.max.messages.kbytes": "16384", "fetch.max.bytes": "16777216", "log_level": "2"}
# What the exactly-once effect rests on; settings_stream.py refuses options of these names.
_GUARANTEES = {
    "enable.auto.commit": "false",
    "enable.auto.offset.store": "false",
    "auto.offset.reset": "error",  # a position that is gone is an error, never a silent jump
    "enable.partition.eof": "true",
    "isolation.level": "read_committed",
}


class Stopped(Exception):
    """The consumer was asked to stop while it waited for the broker."""


def option_values(settings: StreamSettings) -> dict[str, str]:
    """librdkafka options with their secrets; `file:/run/secrets/kafka` is the content of that file.

    Raises:
        ConfigurationError: a file cannot be read. The message has its name, never a value.
    """
    values = {}
    for name, secret in settings.options.items():
        value = secret.get_secret_value()
        if value.startswith(_FILE):
            path = Path(value.removeprefix(_FILE))
            try:
                value = path.read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigurationError(
                    f"setting stream.options, {name}",
                    found=f"{path} ({type(error).__name__})",
                    wanted="a readable file",
                    fix="correct the path or its permissions",
                ) from None
        values[name] = value
    return values


class Broker:
    """One connection. `stop` ends every wait; `say` gets a line for each retry."""

    def __init__(self, settings: StreamSettings, stop: threading.Event, say: Callable[[str], None]) -> None:
        import confluent_kafka

        self._servers, self._patience = settings.bootstrap_servers, settings.give_up_seconds
        self._max_message_bytes = settings.max_message_bytes
        self._stop, self._say = stop, say
        self._answer = min(_ANSWER_SECONDS, settings.give_up_seconds / 3)
        self._ends: dict[Place, int] = {}
        self._last_error = ""
        try:
            self._consumer = confluent_kafka.Consumer(
                {
                    **_MEMORY,
                    **option_values(settings),
                    **_GUARANTEES,
                    "bootstrap.servers": settings.bootstrap_servers,
                    "group.id": settings.group,
                    "error_cb": self._note,
                }
            )
        except confluent_kafka.KafkaException as error:
            raise ConfigurationError(
                "setting stream.options",
                found=error.args[0].str(),
                wanted="options of librdkafka",
                fix="correct the option that it names",
            ) from None

    def _note(self, error: Any) -> None:
        self._last_error = error.str()

    def close(self) -> None:
        self._consumer.close()

    def _patiently(self, what: str, ask: Callable[[], _T]) -> _T:
        """Ask until there is an answer, for at most `give_up_seconds`.

        Raises:
            SourceError: there was none, or the broker refused.
            Stopped: the consumer was asked to stop meanwhile.
        """
        import confluent_kafka

        def waits(error: BaseException) -> bool:
            return isinstance(error, confluent_kafka.KafkaException) and is_passing(error.args[0])

        def tell(state: tenacity.RetryCallState) -> None:
            assert state.outcome is not None, "a retry follows an outcome"
            self._say(f"broker {self._servers}: {state.outcome.exception().args[0].str()}; asking again for {what}")  # type: ignore[union-attr]

        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(waits),
            stop=tenacity.stop_after_delay(self._patience) | tenacity.stop_when_event_set(self._stop),
            wait=tenacity.wait_random_exponential(0.5, max=15),
            sleep=tenacity.sleep_using_event(self._stop),
            before_sleep=tell,
            reraise=True,
        )
        try:
            return retrying(ask)
        except confluent_kafka.KafkaException as error:
            if self._stop.is_set():
                raise Stopped from None
            found = error.args[0].str()
            raise SourceError(
                f"broker {self._servers}",
                found=f"{found} ({self._last_error})" if self._last_error else found,
                wanted=f"{what} within {self._patience:g} s",
                fix="start the brokers, or correct stream.bootstrap_servers and stream.options; what is landed stays, and the consumer goes on there",
            ) from None

    def partitions(self, topic: str) -> int:
        """How many partitions a topic has; 0: there is no such topic."""
        import confluent_kafka

        def ask() -> int:
            found = self._consumer.list_topics(topic, timeout=self._answer).topics[topic]
            if found.error is None:
                return len(found.partitions)
            if found.error.code() == confluent_kafka.KafkaError.UNKNOWN_TOPIC_OR_PART:
                return 0
            raise confluent_kafka.KafkaException(found.error)

        return self._patiently(f"the partitions of topic {topic}", ask)

    def bounds(self, place: Place) -> tuple[int, int]:
        """The oldest offset that the broker still has, and the one after the newest."""
        from confluent_kafka import TopicPartition

        def ask() -> tuple[int, int]:
            low, high = self._consumer.get_watermark_offsets(TopicPartition(*place), timeout=self._answer)
            return int(low), int(high)

        return self._patiently(f"the offsets of {place[0]}/{place[1]}", ask)

    def assign(self, offsets: Mapping[Place, int]) -> None:
        """Read on from these offsets, and nothing else."""
        from confluent_kafka import TopicPartition

        self._ends = {}
        self._consumer.assign([TopicPartition(*place, offset) for place, offset in offsets.items()])

    def poll(self, most: int, seconds: float) -> list[Message]:
        """Messages that have come, at most `most`, waiting at most `seconds` for them.

        Raises:
            SourceError: the next message is gone from the broker, or the broker refuses to give it.
        """
        from confluent_kafka import KafkaError

        messages = []
        for polled in self._consumer.consume(most, seconds):
            error = polled.error()
            place = (str(polled.topic()), int(polled.partition() or 0))
            if error is None:
                messages.append(self._message(polled))
            elif error.code() == KafkaError._PARTITION_EOF:
                self._ends[place] = int(polled.offset() or 0)
            elif error.code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
                raise gone(place, int(polled.offset() or 0), self.bounds(place))
            elif not is_passing(error):
                raise SourceError(
                    f"topic {place[0]}/{place[1]} on {self._servers}",
                    found=error.str(),
                    wanted="messages",
                    fix="correct the topic's name (`from` in the mapping file) or the rights of this user",
                )
        return messages

    def _message(self, polled: Any) -> Message:
        value = polled.value()
        kind, milliseconds = polled.timestamp()
        return Message(
            polled.topic(),
            polled.partition(),
            polled.offset(),
            None if value is None else value[: self._max_message_bytes],
            0 if value is None else len(value),
            datetime.fromtimestamp(milliseconds / 1000, UTC) if kind else None,
        )

    def is_at_end(self, place: Place, next_offset: int) -> bool:
        """Whether everything is read that the broker has now. Asks the broker, so a silent one is never taken for an empty one."""
        return self.bounds(place)[1] <= max(next_offset, self._ends.get(place, 0))


def is_passing(error: Any) -> bool:
    """Whether it is a state of the network or the brokers that ends by itself."""
    from confluent_kafka import KafkaError

    passing = (
        KafkaError._TRANSPORT,
        KafkaError._TIMED_OUT,
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError._RESOLVE,
        KafkaError._WAIT_COORD,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.BROKER_NOT_AVAILABLE,
        KafkaError.REQUEST_TIMED_OUT,
    )
    return not error.fatal() and (error.retriable() or error.code() in passing)


def gone(place: Place, wanted: int, bounds: tuple[int, int]) -> SourceError:
    """The error of a position that the broker does not have."""
    low, high = bounds
    fix = (
        "`pipeline-assets consume --from-oldest` goes on with the oldest message and records the gap in stream/dead_letters"
        if wanted < low
        else "a topic that was created anew needs another name (`from` in the mapping file)"
    )
    return SourceError(
        f"topic {place[0]}/{place[1]}",
        found=f"offsets {low} to {high - 1}" if high > low else f"no message; the next offset is {high}",
        wanted=f"offset {wanted}, the first that is not landed",
        fix=fix,
    )
