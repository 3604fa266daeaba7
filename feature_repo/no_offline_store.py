"""The offline store of a process that reads online only: none. Feast's default is dask, whose import costs 0.8 s CPU and 40 MB."""

from __future__ import annotations

from typing import Literal

from feast.repo_config import FeastConfigBaseModel


class NoOfflineStoreConfig(FeastConfigBaseModel):
    """What Feast checks when it reads a configuration. There is no class `NoOfflineStore`: asking for history is an error."""

    type: Literal["feature_repo.no_offline_store.NoOfflineStore"] = "feature_repo.no_offline_store.NoOfflineStore"
