"""The doors: training and serving read features through these services only."""

from feast import FeatureService

from feature_repo import views

OWNER = "recommendations@example.com"

ranker_online = FeatureService(
    name="ranker_online",
    features=[views.customer, views.customer_candidates],
    owner=OWNER,
    description="What the API reads for one customer, and training and batch scoring read for many.",
)
product_matrix = FeatureService(
    name="product_matrix",
    features=[views.product],
    owner=OWNER,
    description="Product features of a day: training, and the matrix in the bundle.",
)
ALL = [views.customer, views.customer_candidates, views.product, ranker_online, product_matrix]
