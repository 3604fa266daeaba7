"""dbt inside this process. Belongs here: parsing once, building with a parsed project, what became of each node. Does not: which days.

A dbt process costs 5 CPU s before it runs a statement (imports, `dbt --version`, parsing); here a build with a parsed project
costs 0.5 (docs/adr/0017-marts-by-groups-of-days.md). dbt changes the working directory while it runs and keeps one adapter per
process, so builds take turns: pool `warehouse` of one between runs, `_TURN` within a process.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline_assets.recommender.errors import BuildFailed

_TURN = threading.Lock()
_PASSED = {"success", "pass", "warn"}


@dataclass(frozen=True)
class NodeResult:
    """What became of one model or test in a build.

    Args:
        unique_id: as in dbt's manifest.
        name: of the model or test.
        model: the model that a data test is about, the model itself otherwise.
        status: dbt's word: success, error, pass, fail, warn, skipped.
        failures: rows that a test found; 0 for a model.
        seconds: wall time.
        message: dbt's, with the database's error in it.
    """

    unique_id: str
    name: str
    model: str
    status: str
    failures: int
    seconds: float
    message: str

    @property
    def is_test(self) -> bool:
        return self.unique_id.startswith(("test.", "unit_test."))

    @property
    def is_passed(self) -> bool:
        return self.status in _PASSED


@dataclass(frozen=True)
class DbtProjectRunner:
    """One dbt project, run in this process.

    Args:
        project: folder of dbt_project.yml and profiles.yml.
        scratch: folder for compiled SQL.
        target: name of a target in profiles.yml.
    """

    project: Path
    scratch: Path
    target: str

    def credentials(self) -> Any:
        """Type and address of the target's database, as profiles.yml and the variables that it names say."""
        with _TURN:
            return _parsed(self)[1]

    def build(self, *args: str) -> list[NodeResult]:
        """`dbt build` with `args`; one result for each model and test that dbt came to.

        Raises:
            BuildFailed: dbt itself could not run (no connection, a model that does not compile).
        """
        return self._invoke("build", *args)

    def test(self, *args: str) -> list[NodeResult]:
        """`dbt test` with `args`, for unit tests; raises as `build` does."""
        return self._invoke("test", *args)

    def _invoke(self, verb: str, *args: str) -> list[NodeResult]:
        from dbt.cli.main import dbtRunner

        with _TURN:
            # a copy: dbt writes compiled SQL into the nodes, and takes an ephemeral model that it finds compiled for done
            manifest = _parsed(self)[0].deepcopy()
            with _clean_process():
                done = dbtRunner(manifest=manifest).invoke([verb, *args, *self.flags()])
        if done.exception is not None and not isinstance(done.exception, Exception):
            raise done.exception  # somebody ended the run: dbt catches that, too
        results = getattr(done.result, "results", None)
        if results is None:
            raise BuildFailed(
                f"dbt {verb} {' '.join(args)}".strip(),
                found=" ".join(str(done.exception).split()),
                wanted="a finished dbt command",
                fix="mend what the message names; `dbt debug` in dbt/ tries the connection",
            )
        return [
            NodeResult(
                result.node.unique_id,
                result.node.name,
                str(getattr(result.node, "attached_node", None) or result.node.name).rpartition(".")[2],
                str(result.status),
                int(result.failures or 0),
                float(result.execution_time),
                str(result.message or ""),
            )
            for result in results
        ]

    def flags(self) -> list[str]:
        """What every command is given. dbt's debug log and JSON files cost a fifth of a day's build; Dagster keeps what they say."""
        scratch = str(self.scratch.absolute())
        return [
            *("--project-dir", str(self.project), "--profiles-dir", str(self.project), "--target", self.target),
            *("--target-path", scratch, "--log-path", scratch, "--log-level-file", "none"),
            *("--no-write-json", "--no-use-colors"),
        ]


@functools.lru_cache(maxsize=4)
def _parsed(runner: DbtProjectRunner) -> tuple[Any, Any]:
    """The project's manifest and the target's credentials, once a process.

    Raises:
        BuildFailed: dbt cannot read the project, or the profile has no such target or lacks a variable.
    """
    from dbt.adapters.factory import FACTORY
    from dbt.cli.main import dbtRunner

    with _clean_process():
        done = dbtRunner().invoke(["parse", *runner.flags()])
        adapters = list(FACTORY.adapters.values())
    if not done.success:
        raise BuildFailed(
            f"dbt parse of {runner.project} for target {runner.target}",
            found=" ".join(str(done.exception).split()),
            wanted="a project and a profile that dbt can read",
            fix="mend what it names",
        )
    return done.result, adapters[0].config.credentials


@contextlib.contextmanager
def _clean_process() -> Iterator[None]:
    """dbt works in the project's folder and would leave the process there, with its database open: nobody else could open it."""
    from dbt.adapters.duckdb.connections import DuckDBConnectionManager
    from dbt.adapters.factory import cleanup_connections, reset_adapters

    with contextlib.chdir(Path.cwd()):
        try:
            yield
        finally:
            cleanup_connections()
            reset_adapters()
            DuckDBConnectionManager.close_all_connections()


def failed(results: Sequence[NodeResult]) -> list[NodeResult]:
    """Nodes that were tried and did not pass."""
    return [result for result in results if not result.is_passed and result.status != "skipped"]
