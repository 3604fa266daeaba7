"""Extra columns of experiments: computed once a day of a data folder, and joined to training examples and to candidates that are ranked."""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import extra_features
from benchmarks.evaluation import Place, say

if TYPE_CHECKING:
    import duckdb
    import pandas as pd

    from pipeline_assets.recommender.packing import F32
    from pipeline_assets.recommender.training_set import Block, Examples

WEEK = 7
HALF_YEAR = 26  # weeks of mailers that are looked back on


class Extras:
    """The columns of `extra_features.GROUPS` for the candidates of as-of days, kept beside the data under the code that made them."""

    def __init__(self, at: Place) -> None:
        self._at = at
        code = hashlib.sha256(
            b"".join(Path(m.__file__ or "").read_bytes() for m in (extra_features, sys.modules[__name__]))
        )
        self._folder = at.settings.data_dir / "benchmark" / f"extras-{code.hexdigest()[:12]}"
        self._mailers: duckdb.DuckDBPyConnection | None = None
        self._read: dict[date, tuple[pd.Index, F32, list[str]]] = {}

    def names(self, groups: Sequence[str]) -> list[str]:
        """The columns of groups, as any day has them."""
        _, _, names = self._of_day(self._at.weeks.evaluation[-1])
        return [name for name in names if name.split(".")[0] in groups]

    def looked_up(self, day: date, groups: Sequence[str], customers: NDArray[Any], products: NDArray[Any]) -> F32:
        """The columns of groups for pairs (n,), missing where the day has no such candidate."""
        keys, values, names = self._of_day(day)
        wanted = [at for at, name in enumerate(names) if name.split(".")[0] in groups]
        rows = keys.get_indexer(_key(customers, products))
        found: F32 = values[rows][:, wanted]
        found[rows < 0] = np.nan
        return found

    def widened(
        self, part: Examples, keys: Callable[[Block], tuple[NDArray[Any], NDArray[Any]]], groups: Sequence[str]
    ) -> Examples:
        """Examples whose matrices have the columns of groups at their end.

        Args:
            keys: customers and products of a block's rows.
        """
        held: dict[int, F32] = {}

        def wide(block: Block) -> F32:
            if id(block) not in held:
                held[id(block)] = self.looked_up(block.week, groups, *keys(block))
            return np.concatenate([block.read(), held[id(block)]], axis=1)

        return replace(part, blocks=tuple(replace(block, read=partial(wide, block)) for block in part.blocks))

    def _of_day(self, day: date) -> tuple[pd.Index, F32, list[str]]:
        import pandas as pd

        if day not in self._read:
            path = self._folder / f"{day}.parquet"
            if not path.exists():
                self._folder.mkdir(parents=True, exist_ok=True)
                self._computed(day).to_parquet(path)
            frame = pd.read_parquet(path)
            keys = pd.Index(_key(frame.pop("customer_id").to_numpy(object), frame.pop("product_id").to_numpy(object)))
            self._read[day] = (keys, frame.to_numpy(np.float32), list(frame.columns))
        return self._read[day]

    def _computed(self, day: date) -> pd.DataFrame:
        import pandas as pd

        from pipeline_assets.recommender.features import PAIR_FEATURES
        from pipeline_assets.recommender.known import known_on
        from pipeline_assets.recommender.packing import unpack
        from pipeline_assets.resources.training_data import sellable_purchases

        lake, started = self._at.lake, time.process_time()
        rows = lake.read(
            "features/customer_product", day, day, ["customer_id", "candidate_ids", "pair_features"]
        ).to_pandas()
        rows = rows[rows["candidate_ids"].str.len() > 0]
        many = rows["candidate_ids"].str.len().to_numpy()
        pair = np.concatenate(
            [unpack(blob, n, len(PAIR_FEATURES)) for blob, n in zip(rows["pair_features"], many, strict=True)]
        )
        customers, products = (
            np.repeat(rows["customer_id"].to_numpy(object), many),
            np.concatenate(list(rows["candidate_ids"])),
        )
        known = known_on(sellable_purchases(lake, self._at.settings.calendar.first_day, day, day), day)
        catalogue = lake.read(
            "warehouse/dim_products", None, day, ["product_id", "department", "type", "brand", "event_date"]
        ).to_pandas()
        newest = (
            catalogue.sort_values("event_date")
            .drop_duplicates("product_id", keep="last")
            .set_index("product_id")
            .reindex(known.products)
        )
        asked = extra_features.Asked(
            known,
            known.customers.get_indexer(customers),
            known.products.get_indexer(products),
            np.repeat(np.arange(len(rows)), many),
            pair,
            {name: pd.factorize(newest[name], sort=True)[0] for name in ("department", "type", "brand")},
            self._response(day, pd.DataFrame({"customer_id": customers, "product_id": products})),
        )
        found: dict[str, Any] = {"customer_id": customers, "product_id": products}
        for group, function in extra_features.GROUPS.items():
            before = time.process_time()
            found |= {f"{group}.{name}": values.astype(np.float32) for name, values in function(asked).items()}
            say(f"  {group}: {time.process_time() - before:.1f} CPU s")
        say(f"extra columns as of {day}: {len(products)} candidates, {time.process_time() - started:.0f} CPU s")
        return pd.DataFrame(found)

    def _plan(self) -> duckdb.DuckDBPyConnection:
        """Weeks in mailers by product and store, and purchases of them: of the whole folder; `_response` asks up to its day."""
        import duckdb

        if self._mailers is None:
            self._mailers, lake = duckdb.connect(), self._at.lake
            self._mailers.execute("set threads = 1")
            self._mailers.execute(
                """create table plan as select distinct product_id, store_id, valid_from, event_date from read_parquet(?)
                where mailer_placement is not null""",
                [lake.files("warehouse/fct_store_promotions")],
            )
            self._mailers.execute(
                "create table bought as select customer_id, product_id, store_id, order_id, is_in_mailer, event_date from read_parquet(?)",
                [lake.files("warehouse/fct_purchases")],
            )
        return self._mailers

    def _response(self, day: date, pairs: pd.DataFrame) -> pd.DataFrame:
        """Of each pair, in its order: weeks of half a year with and without a mailer since the first purchase, those with a purchase, the plan."""
        con, since = self._plan(), day - timedelta(days=WEEK * HALF_YEAR)
        con.register("pairs", pairs.assign(row=np.arange(len(pairs))))
        return con.execute(
            """
            with home as (
                select customer_id, arg_max(store_id, (n, store_id)) as store_id from (
                    select customer_id, store_id, count(distinct order_id) as n from bought
                    where event_date between $since and $day and store_id is not null group by all
                ) group by customer_id
            ), weeks as (
                select customer_id, product_id, ($day - event_date) // 7 as week, max(is_in_mailer) as is_mailed
                from bought where event_date > $since and event_date <= $day group by all
            ), counted as (
                select customer_id, product_id, max(week) as oldest, sum(is_mailed) as answered, count(*) - sum(is_mailed) as taken
                from weeks group by all
            ), mailed as (
                select row, count(distinct valid_from) as n
                from pairs join home using (customer_id) join counted using (customer_id, product_id) join plan using (product_id, store_id)
                where plan.event_date <= $day and valid_from <= $day and valid_from > $day - 7 * (oldest::integer + 1) group by row
            ), planned as (
                select product_id, store_id from plan where event_date <= $day and valid_from > $day and valid_from <= $day + 7 group by all
            )
            select coalesce(mailed.n, 0) as mailed, coalesce(answered, 0) as answered, coalesce(taken, 0) as taken,
                greatest(coalesce(oldest + 1, 0) - coalesce(mailed.n, 0), 0) as plain, planned.product_id is not null as is_planned
            from pairs left join home using (customer_id) left join counted using (customer_id, product_id)
            left join mailed using (row) left join planned on planned.product_id = pairs.product_id and planned.store_id = home.store_id
            order by row
            """,
            {"day": day, "since": since},
        ).df()


def _key(customers: NDArray[Any], products: NDArray[Any]) -> NDArray[Any]:
    found: NDArray[Any] = customers.astype(object) + "\t" + products.astype(object)
    return found


def stored_with_keys(
    addresses: Iterable[str], newest: date
) -> tuple[Examples, Callable[[Block], tuple[NDArray[Any], NDArray[Any]]]]:
    """Stored examples of the weeks up to `newest`, and what tells a block's customers and products."""
    import pyarrow.parquet

    from pipeline_assets.recommender.features import MODEL_FEATURES
    from pipeline_assets.recommender.training_set import examples, matrix_of

    places: dict[Callable[[], F32], tuple[Any, int]] = {}

    def groups() -> Iterator[Any]:
        for address in addresses:
            file = pyarrow.parquet.ParquetFile(address)
            for number in range(file.num_row_groups):
                table = file.read_row_group(number, ["week", "customer_id", "label", "amount"])
                if table["week"][0].as_py() <= newest:
                    read = partial(lambda f, n: matrix_of(f.read_row_group(n, list(MODEL_FEATURES))), file, number)
                    places[read] = file, number
                    yield table, read

    found = examples(groups())

    def of_block(block: Block) -> tuple[NDArray[Any], NDArray[Any]]:
        file, number = places[block.read]
        table = file.read_row_group(number, ["customer_id", "product_id"])
        return table["customer_id"].to_numpy(), table["product_id"].to_numpy()

    return found, of_block
