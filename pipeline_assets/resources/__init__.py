"""One file per outside system: lake, warehouse, feature store, tracking, alerts."""
