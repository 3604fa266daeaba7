"""The table of contents, and the only wiring. `build_defs(settings)` is the seam for tests."""

from __future__ import annotations

import dagster as dg

import pipeline_assets.assets
import pipeline_assets.checks
from pipeline_assets import automation
from pipeline_assets.resources.alerts import alerts_of
from pipeline_assets.resources.feature_store import FeatureStoreResource
from pipeline_assets.resources.lake import local_lake
from pipeline_assets.resources.sources import SourceResource
from pipeline_assets.resources.tracking import Tracking, mlflow_run
from pipeline_assets.resources.warehouse import Warehouse
from pipeline_assets.settings import PROJECT_ROOT, Settings, get_settings


def build_defs(settings: Settings) -> dg.Definitions:
    """All assets, checks, jobs, sensors and the resources of these settings."""
    artifact_root = str(settings.data_dir / "mlflow_artifacts")
    return dg.Definitions(
        assets=dg.load_assets_from_package_module(pipeline_assets.assets),
        asset_checks=dg.load_asset_checks_from_package_module(pipeline_assets.checks),
        jobs=automation.JOBS,
        schedules=automation.SCHEDULES,
        sensors=automation.SENSORS,
        # One process per run: a fresh process per step costs 7 CPU s of imports, an in-process step 0.1 (docs/design/performance.md).
        executor=dg.in_process_executor,
        resources={
            "source": SourceResource(),
            "lake": local_lake(settings.data_dir),
            "warehouse": Warehouse(
                project=str(PROJECT_ROOT / "dbt"),
                scratch=str(settings.data_dir / "dbt"),
                target=settings.dbt_target,
                customer_share=settings.source.customer_share,
            ),
            "feature_store": FeatureStoreResource(),
            "mlflow": mlflow_run.configured({"tracking_uri": settings.mlflow_uri, "artifact_root": artifact_root}),
            "tracking": Tracking(tracking_uri=settings.mlflow_uri, artifact_root=artifact_root),
            "alerts": alerts_of(settings.alerts, settings.data_dir),
        },
    )


defs = build_defs(get_settings())
