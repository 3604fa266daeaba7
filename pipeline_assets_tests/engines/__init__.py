"""The dbt project on other engines than DuckDB, compared with DuckDB: `make engines`."""
