"""Arrow schemas of the tables the pipeline computes: features, recommendations. The day (`event_date`) is the partition."""

from __future__ import annotations

import pyarrow

from pipeline_assets.recommender.features import CUSTOMER_FEATURES, MODEL_FEATURES, PRODUCT_FEATURES

_STAMP = [pyarrow.field("feature_ts", pyarrow.timestamp("us", "UTC")), pyarrow.field("event_date", pyarrow.date32())]
_TEXT, _F32 = pyarrow.string(), pyarrow.float32()

FEATURE_TABLES: dict[str, pyarrow.Schema] = {
    "customer": pyarrow.schema(
        [pyarrow.field("customer_id", _TEXT), *(pyarrow.field(n, _F32) for n in CUSTOMER_FEATURES), *_STAMP]
    ),
    "product": pyarrow.schema(
        [
            *(pyarrow.field(n, _TEXT) for n in ("product_id", "department", "category", "type", "brand")),
            *(pyarrow.field(n, _F32) for n in PRODUCT_FEATURES),
            *_STAMP,
        ]
    ),
    "customer_product": pyarrow.schema(
        [
            pyarrow.field("customer_id", _TEXT),
            pyarrow.field("candidate_ids", pyarrow.list_(_TEXT)),
            pyarrow.field("pair_features", pyarrow.binary()),
            *_STAMP,
        ]
    ),
}

TRAINING_EXAMPLES: pyarrow.Schema = pyarrow.schema(
    [
        pyarrow.field("week", pyarrow.date32()),
        pyarrow.field("customer_id", _TEXT),
        pyarrow.field("product_id", _TEXT),
        pyarrow.field("label", pyarrow.int8()),
        pyarrow.field("amount", _F32),
        *(pyarrow.field(n, _F32) for n in MODEL_FEATURES),
        pyarrow.field("event_date", pyarrow.date32()),
    ]
)

RECOMMENDATIONS: pyarrow.Schema = pyarrow.schema(
    [
        pyarrow.field("as_of", pyarrow.date32()),
        pyarrow.field("customer_id", _TEXT),
        pyarrow.field("rank", pyarrow.int32()),
        pyarrow.field("product_id", _TEXT),
        pyarrow.field("score", pyarrow.float64()),
        pyarrow.field("model_version", _TEXT),
        pyarrow.field("event_date", pyarrow.date32()),
    ]
)
