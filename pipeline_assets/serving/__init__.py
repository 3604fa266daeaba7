"""The HTTP API over a bundle and the online store. Never imports dagster, mlflow or dbt."""
