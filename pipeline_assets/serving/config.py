"""What one serving process is told. Built from the settings in `__main__`, or by hand in a test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from pipeline_assets.settings_access import KeySettings
from pipeline_assets.settings_rules import RulesSettings


@dataclass(frozen=True)
class ServingConfig:
    """Frozen. The limits carry their reasons."""

    release_url: str  # SQLAlchemy URL of the release table
    log_dir: Path  # prediction log, one file a day
    feast: Mapping[str, Any] = field(default_factory=dict)  # content of feature_store.yaml
    public_keys: Sequence[Path] = ()  # PEM files: who may sign a bundle; without any, none is loaded
    poll_seconds: float = 2.0
    start_seconds: float = (
        30.0  # a worker listens when its bundle is loaded (3 s), or after this: then /readyz says why it is not
    )
    default_k: int = 10
    max_k: int = 100
    max_feature_lag: timedelta = timedelta(days=1)  # older features than this before the bundle's are stale
    answer_seconds: float = 1.0  # then the batch answer is given; a ranked answer takes about 10 ms
    max_in_flight: int = 8  # answers take 1 ms, one after the other: who is let in waits 10 ms, the rest gets 429
    remember_seconds: float = 0.0  # features that were read so lately are not read again
    remember_customers: int = 4_000  # 80 MB
    threads: int = (
        2  # that wait for the online store; scoring is one core's work, and four cost 0.3 ms a request in hand-overs
    )
    breaker_failures: int = 5  # consecutive failed reads after which the store is left alone
    breaker_seconds: float = 5.0
    retry_refused_seconds: float = 60.0  # a probe may have been refused for a busy machine
    rules: RulesSettings = field(default_factory=RulesSettings)
    time_zone: ZoneInfo | None = (
        None  # of the shop's days; None on a replayed calendar, where the bundle says which day it is
    )
    events_url: str = ""  # SQLAlchemy URL of the recent events; a file in `log_dir` if not given
    follow_seconds: float = 0.5
    retention: timedelta = timedelta(days=7)
    events_per_customer: int = 50
    events_in_memory: int = 100_000
    keys: tuple[KeySettings, ...] = ()  # of the API; with no keys and no file it is open, on loopback only
    keys_file: Path | None = None
    max_body_bytes: int = 1_048_576
    shadow_share: float = (
        0.2  # of the ranked answers, while a rollout is open: the other model ranks them too, beside the request
    )
    log_queue_lines: int = 20_000  # about 40 s of full load, 20 MB
