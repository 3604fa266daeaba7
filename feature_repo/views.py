"""What can be read: one view per feature table. Names and order come from the one declaration in recommender/features.py."""

from datetime import timedelta

from feast import FeatureView, Field
from feast.types import Array, Bytes, Float32, String

from feature_repo import entities, sources
from pipeline_assets.recommender.features import CUSTOMER_FEATURES, PRODUCT_FEATURES

OWNER = "recommendations@example.com"
TTL = timedelta(days=2)  # a day late is served and flagged by its age; older than that is missing

customer = FeatureView(
    name="customer",
    entities=[entities.customer],
    ttl=TTL,
    schema=[Field(name=name, dtype=Float32) for name in CUSTOMER_FEATURES],
    source=sources.customer,
    owner=OWNER,
    description="How a customer shops: orders, baskets, rhythm, share of promotions. As of the end of a business day.",
)
customer_candidates = FeatureView(
    name="customer_candidates",
    entities=[entities.customer],
    ttl=TTL,
    schema=[Field(name="candidate_ids", dtype=Array(String)), Field(name="pair_features", dtype=Bytes)],
    source=sources.customer_product,
    owner=OWNER,
    description="A customer's candidate products and their pair features, packed (recommender/packing.py): one read per request.",
)
product = FeatureView(
    name="product",
    entities=[entities.product],
    ttl=TTL,
    schema=[Field(name=name, dtype=Float32) for name in PRODUCT_FEATURES],
    source=sources.product,
    online=False,  # served as a matrix in the bundle, not key by key
    owner=OWNER,
    description="How a product sells: popularity, trend, price, next week's promotion. As of the end of a business day.",
)
