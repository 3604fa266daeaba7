"""Verbs that watch and tidy up: `metrics`, `retention`. Thin shells over resources/."""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime
from typing import Any

from pipeline_assets.settings import get_settings


def metrics(arguments: argparse.Namespace) -> int:
    """Read the pipeline's figures, write the metrics file and print it; with --port serve it as /metrics until stopped."""
    import dagster as dg

    from pipeline_assets.cli import quiet
    from pipeline_assets.resources.lake import local_lake
    from pipeline_assets.resources.pipeline_metrics import serve_text_file, text_file, write_metrics

    quiet()
    settings = get_settings()
    if arguments.port is None:
        (settings.data_dir / "dagster").mkdir(parents=True, exist_ok=True)
        with dg.DagsterInstance.get() as instance:
            path = write_metrics(local_lake(settings.data_dir), instance, settings, datetime.now(UTC))
        print(path.read_text(), end="")
        return 0
    with serve_text_file(text_file(settings), arguments.host, arguments.port) as server:
        print(
            f"serving {text_file(settings)} on http://{arguments.host}:{server.server_address[1]}/metrics", flush=True
        )
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print("stopped", file=sys.stderr)
    return 0


def retention(arguments: argparse.Namespace) -> int:
    """What has been kept long enough, by section `retention` of the settings; with --apply it is removed, as the schedule does every night."""
    import json

    import dagster as dg

    from pipeline_assets.cli import quiet
    from pipeline_assets.resources.lake import local_lake
    from pipeline_assets.resources.retention_run import expired, remove

    quiet()
    settings = get_settings()
    (settings.data_dir / "dagster").mkdir(parents=True, exist_ok=True)
    with dg.DagsterInstance.get() as instance:
        found = expired(settings, local_lake(settings.data_dir), instance, datetime.now(UTC))
    if arguments.apply:
        remove(found)
    if arguments.json:
        rows = [{"kind": each.kind, "path": str(each.path), "bytes": each.size} for each in found]
        print(json.dumps({"removed": arguments.apply, "found": rows}, indent=1))
        return 0
    for each in found:
        print(f"{each.kind:16}{each.size / 2**20:9.1f} MB  {each.path}")
    done = "removed" if arguments.apply else "would be removed; --apply removes them"
    print(f"{len(found)} files and folders, {sum(each.size for each in found) / 2**20:.1f} MB {done}")
    return 0


def add_verbs(verbs: Any) -> None:
    """Add the verbs of this module."""
    verb = verbs.add_parser("metrics", help="Prometheus metrics of the pipeline", description=metrics.__doc__)
    verb.add_argument("--port", type=int, help="serve the file that the sensor `metrics` writes, instead of writing it")
    verb.add_argument("--host", default="127.0.0.1", help="(default %(default)s)")
    verb.set_defaults(function=metrics)
    verb = verbs.add_parser("retention", help="what was kept long enough", description=retention.__doc__)
    verb.add_argument("--apply", action="store_true", help="remove it (default: list it)")
    verb.add_argument("--json", action="store_true", help="machine-readable output")
    verb.set_defaults(function=retention, reads_lake=True)
