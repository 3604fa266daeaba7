"""Daily product recommendation as Dagster software-defined assets. Start at `definitions.py`."""
