"""The sections `serving` and `stores` of the settings. settings.py reads them, as every section."""

from __future__ import annotations

from typing import Any

import pydantic

from pipeline_assets.settings_base import Section


class ServingSettings(Section):
    """Batch recommendations and the API."""

    top: int = pydantic.Field(20, ge=1, le=100)
    host: str = "127.0.0.1"
    port: int = pydantic.Field(8000, ge=0, le=65535)
    poll_seconds: float = pydantic.Field(2.0, gt=0)
    max_in_flight: int = pydantic.Field(
        8, ge=1
    )  # requests in progress in one process; the rest gets 429 (docs/adr/0032-speed-of-an-answer.md)
    remember_seconds: float = pydantic.Field(0.0, ge=0)  # features that were read so lately are not read again
    compiled: bool = True  # bundles get the model as machine code too: seven times as fast, 10 s CPU a new model


class StoreSettings(Section):
    """Servers, where there are any. Empty means embedded in `data_dir`."""

    mlflow_uri: str = ""
    release_url: str = ""
    feast_registry: str = ""
    online_store: dict[str, Any] = pydantic.Field(default_factory=dict)  # Feast `online_store` section, e.g. type redis
