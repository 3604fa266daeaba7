"""Pure recommendation code: no Dagster, MLflow, Feast, clock, unseeded randomness or environment."""
