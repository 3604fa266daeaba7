"""Build the dbt project on Spark, in the environment of requirements-spark.lock: `python spark_build.py PROJECT FOLDER FIRST:LAST ...`

FOLDER/lake holds a Parquet file per feed; the marts are written to FOLDER/spark. Each FIRST:LAST is one build, in one session, so the second one
is incremental. Imports nothing of ours: there is no Dagster here.
"""

from __future__ import annotations

import sys
from pathlib import Path

FEEDS = ("purchases", "exposures", "products", "customers")


def main(project: str, folder: str, *windows: str) -> int:
    """One session, one build per window."""
    from dbt.cli.main import dbtRunner
    from pyspark.sql import SparkSession

    session = (
        SparkSession.builder.master("local[2]")
        .appName("marts")
        .config("spark.driver.memory", "1g")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.ui.enabled", "false")
        .config("spark.sql.catalogImplementation", "in-memory")
        .config("spark.sql.warehouse.dir", f"{folder}/spark")
        .config("spark.sql.sources.partitionOverwriteMode", "dynamic")  # replace the days of the run, not the table
        .config("spark.sql.shuffle.partitions", "4")
        .config("spark.sql.session.timeZone", "UTC")
        .getOrCreate()
    )
    session.sparkContext.setLogLevel("ERROR")
    session.sql("create database lake")
    for feed in FEEDS:
        session.sql(f"create table lake.{feed} using parquet location 'file:{folder}/lake/{feed}.parquet'")
    flags = [
        "--project-dir",
        project,
        "--profiles-dir",
        project,
        "--target",
        "spark",
        "--target-path",
        f"{folder}/target",
    ]
    runner = dbtRunner()
    for window in windows:
        first, last = window.split(":")
        session.sql(
            f"create or replace temporary view run_days as select date '{first}' as first_day, date '{last}' as last_day"
        )
        session.sql("drop table if exists lake.run_window")
        session.sql("create table lake.run_window using parquet as select * from run_days")
        done = runner.invoke(["build", "--exclude-resource-type", "unit_test", "--log-path", folder, *flags])
        if not done.success:
            return 1
    session.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], str(Path(sys.argv[2]).absolute()), *sys.argv[3:]))
