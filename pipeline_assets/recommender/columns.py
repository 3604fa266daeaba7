"""Column names: the same quantity has the same name in every table, frame and report."""

from __future__ import annotations

CUSTOMER_ID = "customer_id"  # str
PRODUCT_ID = "product_id"  # str
ORDER_ID = "order_id"  # str
EVENT_ID = "event_id"  # str, unique in its feed and day
STORE_ID = "store_id"  # str or null
EVENT_DATE = "event_date"  # date, the business day; the partition key of every daily table
EVENT_TS = "event_ts"  # timestamp, UTC, microseconds
QUANTITY = "quantity"  # sold units
AMOUNT = "amount"  # paid, in the shop's currency
DISCOUNT = "discount"  # taken off, same currency, >= 0
RANK = "rank"  # int, 1 is the best
SCORE = "score"  # float, comparable within one slate only
AS_OF = "as_of"  # date D: everything with event_date <= D is known; slates are for D + 1 .. D + horizon
FEATURE_TS = "feature_ts"  # timestamp at which features as of D are known: D + 1, 00:00 UTC
CANDIDATE_IDS = "candidate_ids"  # list[str], best personal candidates first
PAIR_FEATURES_BLOB = "pair_features"  # bytes: little-endian float32, n_candidates x n_pair_features, row-major
