"""Where features are stored: the lake's Delta tables of group `features`, by the settings of this process."""

from feast import FileSource
from feast.data_format import DeltaFormat

from pipeline_assets.settings import get_settings

_LAKE = get_settings().data_dir / "lake" / "features"


def _source(table: str, description: str) -> FileSource:
    return FileSource(
        name=f"lake_{table}",
        path=str(_LAKE / table),
        file_format=DeltaFormat(),
        timestamp_field="feature_ts",  # when the row is known: D + 1, 00:00 UTC, so that a join at midnight of T sees day D
        description=description,
        owner="recommendations@example.com",
    )


customer = _source("customer", "One row per customer and business day.")
customer_product = _source("customer_product", "One row per customer and business day: candidates packed.")
product = _source("product", "One row per product and business day.")
