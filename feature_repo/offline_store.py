"""Feast's DuckDB offline store over the lake's Delta tables.

Feast reads Delta through a DuckDB extension that must be downloaded; this store lists the files of the current Delta version
instead, and only those of the days that a retrieval can reach (up to the longest TTL before each entity timestamp). Without that pruning
a point-in-time join of the packed candidates would read every day ever published.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import Any, Literal

import ibis
import pandas as pd
from feast.data_source import DataSource
from feast.feature_view import FeatureView
from feast.infra.offline_stores.duckdb import DuckDBOfflineStore, DuckDBOfflineStoreConfig
from feast.infra.offline_stores.ibis import (
    get_historical_features_ibis,
    pull_all_from_table_or_query_ibis,
    pull_latest_from_table_or_query_ibis,
)
from feast.infra.offline_stores.offline_store import RetrievalJob
from feast.infra.registry.base_registry import BaseRegistry
from feast.repo_config import RepoConfig

from pipeline_assets.recommender.errors import ConfigurationError
from pipeline_assets.resources.delta_tables import opened


class LakeOfflineStoreConfig(DuckDBOfflineStoreConfig):
    """Same options as Feast's DuckDB store."""

    type: Literal["feature_repo.offline_store.LakeOfflineStore"] = "feature_repo.offline_store.LakeOfflineStore"


def _read(source: DataSource, _repo_path: str, days: Sequence[date] = ()) -> ibis.Table:
    """`days`: whose files are needed; none: all."""
    table = opened(source.path)
    filters = [("event_date", "in", [day.isoformat() for day in days])]
    files = table.file_uris(file_pruning_predicate=filters if days else None)
    # nothing in reach: one file, whose rows the join rejects
    return ibis.read_parquet(sorted(files or table.file_uris()[:1]), hive_partitioning=True)


def _in_reach(asked: pd.Series, ttl: timedelta) -> list[date]:
    """The days whose rows features asked for at these times can be: from a TTL before each."""
    days = {(moment - timedelta(days=back)).date() for moment in asked.unique() for back in range(ttl.days + 2)}
    return sorted(days)


def _refuse_write(*_: Any) -> None:
    raise ConfigurationError(
        "Feast's offline store",
        found="a write",
        wanted="reads only",
        fix="materialise the assets of group `features`; they write the lake",
    )


class LakeOfflineStore(DuckDBOfflineStore):
    """DuckDB over an explicit list of Delta files."""

    @staticmethod
    def get_historical_features(
        config: RepoConfig,
        feature_views: list[FeatureView],
        feature_refs: list[str],
        entity_df: pd.DataFrame | str,
        registry: BaseRegistry,
        project: str,
        full_feature_names: bool = False,
        filter_by_created_timestamp: bool = False,
    ) -> RetrievalJob:
        days: Sequence[date] = ()
        if isinstance(entity_df, pd.DataFrame) and all(view.ttl for view in feature_views):
            days = _in_reach(entity_df["event_timestamp"], max(view.ttl for view in feature_views))
        return get_historical_features_ibis(
            config=config,
            feature_views=feature_views,
            feature_refs=feature_refs,
            entity_df=entity_df,
            registry=registry,
            project=project,
            full_feature_names=full_feature_names,
            data_source_reader=functools.partial(_read, days=days),
            data_source_writer=_refuse_write,
            filter_by_created_timestamp=filter_by_created_timestamp,
        )

    @staticmethod
    def pull_latest_from_table_or_query(
        config: RepoConfig,
        data_source: DataSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None,
        start_date: datetime,
        end_date: datetime,
    ) -> RetrievalJob:
        return pull_latest_from_table_or_query_ibis(
            config=config,
            data_source=data_source,
            join_key_columns=join_key_columns,
            feature_name_columns=feature_name_columns,
            timestamp_field=timestamp_field,
            created_timestamp_column=created_timestamp_column,
            start_date=start_date,
            end_date=end_date,
            data_source_reader=_read,
            data_source_writer=_refuse_write,
        )

    @staticmethod
    def pull_all_from_table_or_query(
        config: RepoConfig,
        data_source: DataSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None = None,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
    ) -> RetrievalJob:
        return pull_all_from_table_or_query_ibis(
            config=config,
            data_source=data_source,
            join_key_columns=join_key_columns,
            feature_name_columns=feature_name_columns,
            timestamp_field=timestamp_field,
            created_timestamp_column=created_timestamp_column,
            start_date=start_date,
            end_date=end_date,
            data_source_reader=_read,
            data_source_writer=_refuse_write,
        )
