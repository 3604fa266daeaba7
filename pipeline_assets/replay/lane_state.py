"""What a policy's process keeps between the days of a replay: the API, the probes, the sensors' cursors, and what was told last.

Belongs here: opening, closing, asking which faults act. Does not: what a day does (policy_lane.py).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import date
from typing import TYPE_CHECKING, Any

from pipeline_assets.replay.lanes import Stopwatch, open_instance, run_task
from pipeline_assets.replay.story import Event, Injected, Policy, days_of
from pipeline_assets.settings import get_settings

if TYPE_CHECKING:
    import dagster as dg

    from pipeline_assets.loop import Task
    from pipeline_assets.replay.traffic import Api
    from pipeline_assets.serving.rollout import RolloutState


class Lane:
    """What a policy's process keeps between days: the API, the sensors' cursors, and what was told last."""

    def __init__(self, policy: Policy, faults: Sequence[Injected], requests: int, seed: int) -> None:
        from pipeline_assets.definitions import defs
        from pipeline_assets.serving.probe import children_from
        from pipeline_assets.serving.probe_server import ProbeServer

        self.policy, self.faults, self.requests, self.seed = policy, faults, requests, seed
        self.cursors: dict[str, str | None] = {}
        self.requested: set[str] = set()  # run keys: a sensor that asks twice has one effect
        self.verdicts: dict[str, str] = {}
        self.left_out: set[Injected] = set()  # faults that cannot be brought about on their day
        self.missed: list[date] = []  # days that nobody published
        self.unwatched: list[date] = []  # days that no monitor looked at
        self.releases = 0  # the newest row of the release table that was told
        self.rollout: tuple[int, RolloutState] | None = None  # what was told of rollouts last
        self.alerts: list[dict[str, Any]] = []
        self._open = ExitStack()
        self.probes = self._open.enter_context(ProbeServer())  # the release and the API ask a bundle each day
        self._open.enter_context(children_from(self.probes))
        self.api: Api | None = None
        self._serving = self._open.enter_context(ExitStack())
        listener = _AlertListener(self.alerts)
        logging.getLogger("pipeline_assets.alerts").addHandler(listener)
        # one instance and one repository for all days: Dagster keeps a weak reference to the instance that a repository was made under
        self.instance: dg.DagsterInstance = self._open.enter_context(open_instance())
        self.repository = defs.get_repository_def()

    def start_api(self) -> Api:
        """The API, started once there is something to serve."""
        from pipeline_assets.replay.traffic import Api

        if self.api is None:
            self.api = self._serving.enter_context(Api(get_settings()).running())
        return self.api

    def stop_api(self) -> None:
        """End it; the next one who asks starts another."""
        self._serving.close()
        self.api = None

    def close(self) -> None:
        """Stop the API and the probes."""
        self._open.close()

    def watch(self) -> Stopwatch:
        """From now on, with what probes cost beside this process."""
        return Stopwatch(lambda: self.probes.cpu_seconds)

    def run(self, day: date, task: Task) -> list[Event]:
        """One Dagster run of this policy."""
        return run_task(day, task, self.instance)

    def faults_of(self, day: date) -> set[str]:
        return {fault.name for fault in self.faults if fault.day == day and fault not in self.left_out}

    def is_in(self, name: str, day: date) -> bool:
        """Whether a fault that lasts for days acts on `day`."""
        return any(fault.name == name and day in days_of(fault) for fault in self.faults)


class _AlertListener(logging.Handler):
    """Keeps what is sent through the alerts' door: its log line is its JSON."""

    def __init__(self, kept: list[dict[str, Any]]) -> None:
        super().__init__()
        self._kept = kept

    def emit(self, record: logging.LogRecord) -> None:
        self._kept.append(json.loads(record.getMessage()))
