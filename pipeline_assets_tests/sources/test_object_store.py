"""What is peculiar to an object store; everything else is the contract suite, which runs on it too."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pandas as pd
import pytest

from pipeline_assets.recommender.errors import SourceError
from pipeline_assets.schemas.feeds import FEEDS
from pipeline_assets.sources.base import SourceCalendar
from pipeline_assets.sources.files import FilesSource
from pipeline_assets.sources.mapping import FeedMapping, SourceMapping
from pipeline_assets_tests.object_store import ObjectStore

CALENDAR = SourceCalendar("UTC", date(2017, 1, 1), date(2017, 12, 31))
MAPPING = SourceMapping(None, {"products": FeedMapping(day="day")})


def source(url: str, folder: Path) -> FilesSource:
    return FilesSource(url, MAPPING, CALENDAR, 0.5, folder / "spool")


def products(n_days: int, rows: int) -> pd.DataFrame:
    """`rows` products a day, in the order of the days, with a text that does not compress."""
    days = [f"2017-{n // 28 + 1:02}-{n % 28 + 1:02}" for n in range(n_days)]
    frame = pd.DataFrame({"day": [day for day in days for _ in range(rows)], "is_sellable": True})
    return frame.assign(product_id=[f"p{n}" for n in range(len(frame))])


def test_packed_files_are_read_in_place(object_store: ObjectStore, tmp_path: Path) -> None:
    """A .csv.gz in a bucket: 3 days of 2 products, one day of them."""
    products(3, 2).to_csv(tmp_path / "products.csv.gz", index=False)
    object_store.upload(tmp_path, "packed")
    found = source(object_store.url("packed"), tmp_path).read(FEEDS["products"], [date(2017, 1, 2)])
    assert found["product_id"].to_pylist() == ["p2", "p3"]


def test_a_new_version_is_read_anew(object_store: ObjectStore, tmp_path: Path) -> None:
    """The object is replaced: another size or time, so the spool of the old one is not used and not kept."""
    path = tmp_path / "in" / "products.csv"
    path.parent.mkdir()
    for n_days in (1, 2):
        products(n_days, 1).to_csv(path, index=False)
        object_store.upload(path.parent, "replaced")
        found = source(object_store.url("replaced"), tmp_path)
        assert len(found.read(FEEDS["products"], [date(2017, 1, 1), date(2017, 1, 2)])) == n_days
        assert len(list((tmp_path / "spool").glob("*.parquet"))) == 1


def test_bucket_that_is_not_there_is_named_without_the_options(object_store: ObjectStore, tmp_path: Path) -> None:
    """What is wrong, where, and not how one gets in."""
    with pytest.raises(SourceError) as error:
        source(object_store.url("nothing").replace("//shop", "//key:geheim@elsewhere"), tmp_path).arrived_days()
    assert error.value.culprit == "source.path s3://elsewhere/nothing"
    assert "geheim" not in str(error.value)


def test_scheme_that_nobody_knows_is_refused(tmp_path: Path) -> None:
    """`ftp://` is no object store."""
    with pytest.raises(SourceError, match="ftp"):
        source("ftp://host/drops", tmp_path).arrived_days()
