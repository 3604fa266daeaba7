"""The section `stream` of the settings: the Kafka-protocol consumer. settings.py reads it, as every section."""

from __future__ import annotations

from typing import Any

import pydantic

from pipeline_assets.recommender.errors import ConfigurationError
from pipeline_assets.settings_base import Section

_STREAM_GUARANTEES = {
    "bootstrap.servers",
    "group.id",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "auto.offset.reset",
    "enable.partition.eof",
    "isolation.level",
}  # sources/stream_broker.py sets them


class StreamSettings(Section):
    """`source.kind = stream`: the Kafka-protocol consumer and when its days are complete."""

    bootstrap_servers: str = ""
    group: str = "pipeline-assets"  # the name brokers see; positions are kept in the lake, not in the group
    lateness_minutes: int = pydantic.Field(60, ge=0)  # how long after its end a day waits for its last events
    idle_minutes: float | None = pydantic.Field(60, ge=0)  # None: only events move a partition's watermark
    batch_messages: int = pydantic.Field(50_000, ge=1)
    batch_bytes: int = pydantic.Field(33_554_432, ge=1)  # 32 MiB: the process stays below 0.6 GB
    batch_seconds: float = pydantic.Field(30.0, gt=0)  # a commit each; 2,880 a day at most
    max_message_bytes: int = pydantic.Field(65_536, ge=1_024)  # an event has some hundred; above it a dead letter
    give_up_seconds: float = pydantic.Field(300.0, gt=0)  # of brokers that do not answer
    options: dict[str, pydantic.SecretStr] = pydantic.Field(default_factory=dict)  # librdkafka's, e.g. security

    @pydantic.field_validator("options", mode="before")
    @classmethod
    def _secret_options(cls, options: Any) -> Any:
        """Texts of the values, and no option that the exactly-once effect rests on. Errors name options and never values."""
        wanted = "a table of librdkafka's options and their values"
        if not isinstance(options, dict):
            raise _bad_options(type(options).__name__, wanted)
        for name, value in options.items():
            if name in _STREAM_GUARANTEES:
                raise _bad_options(name, "an option that each event once does not rest on")
            if not isinstance(value, str | int | float | pydantic.SecretStr):
                raise _bad_options(f"{name} with a {type(value).__name__}", wanted)
        return {name: str(v).lower() if isinstance(v, bool | int | float) else v for name, v in options.items()}


def _bad_options(found: str, wanted: str) -> ConfigurationError:
    return ConfigurationError("setting stream.options", found=found, wanted=wanted, fix="correct or remove it")
