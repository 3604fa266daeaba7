"""Start the API: `python -O -m pipeline_assets.serving`.

`-O` is not cosmetic: it switches off the run-time type checks that Feast compiles in (typeguard); `import feast` costs
1.7 s CPU with it and 6.0 s without (measured).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from pipeline_assets.recommender.errors import PipelineError
from pipeline_assets.serving.config import ServingConfig
from pipeline_assets.serving.startup import import_lightgbm_alone

if TYPE_CHECKING:
    from fastapi import FastAPI

    from pipeline_assets.settings import Settings


def config_from(settings: Settings) -> ServingConfig:
    """What the settings say about serving.

    Feast is told two things differently. The registry is read once and kept: serving needs one service, which changes
    only with the software, and goes on while the registry is down. The offline store is not read here, so there is none.
    """
    from feature_repo.config import repo_options

    options = repo_options(settings)
    options["offline_store"] = {"type": "feature_repo.no_offline_store.NoOfflineStore"}
    options["registry"] = {**options["registry"], "cache_ttl_seconds": 0}  # 0: never expires
    return ServingConfig(
        release_url=settings.release_url,
        log_dir=settings.data_dir / "prediction_log",
        public_keys=settings.public_key_files,
        remember_seconds=settings.serving.remember_seconds,
        feast=options,
        poll_seconds=settings.serving.poll_seconds,
        max_in_flight=settings.serving.max_in_flight,
        rules=settings.rules,
        shadow_share=settings.rollout.shadow_share,
        time_zone=ZoneInfo(settings.calendar.time_zone) if settings.calendar.clock == "wall" else None,
        events_url=settings.events_url,
        follow_seconds=settings.events.follow_seconds,
        retention=timedelta(days=settings.events.retention_days),
        events_per_customer=settings.events.per_customer,
        events_in_memory=settings.events.in_memory,
        keys=settings.access.keys,
        keys_file=settings.access.keys_file,
        max_body_bytes=settings.access.max_body_bytes,
    )


def app() -> FastAPI:
    """The factory that each worker process calls."""
    import_lightgbm_alone()
    from pipeline_assets.serving.app import create_app
    from pipeline_assets.settings import get_settings

    return create_app(config_from(get_settings()))


def main(arguments: Sequence[str]) -> int:
    """Serve until stopped.

    Raises:
        ConfigurationError: the address is one of a network, and there are no API keys.
    """
    from pipeline_assets.serving.access import refuse_open_bind
    from pipeline_assets.settings import get_settings

    settings = get_settings()
    serving, access = settings.serving, settings.access
    parser = argparse.ArgumentParser(prog="python -O -m pipeline_assets.serving", description=__doc__)
    parser.add_argument("--host", default=serving.host, help="address to bind to (default %(default)s)")
    parser.add_argument("--port", type=int, default=serving.port, help="(default %(default)s)")
    parser.add_argument("--workers", type=int, default=1, help="processes, each with its own metrics (default 1)")
    options = parser.parse_args(arguments)
    refuse_open_bind(options.host, is_open=not access.keys and access.keys_file is None)
    import uvicorn

    uvicorn.run(
        "pipeline_assets.serving.__main__:app",
        factory=True,
        host=options.host,
        port=options.port,
        workers=options.workers,
        access_log=False,  # 0.2 ms CPU a request; the prediction log and the metrics say more
        timeout_graceful_shutdown=10,
    )
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except PipelineError as error:
        sys.exit(f"error: {error}")
