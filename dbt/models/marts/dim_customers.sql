{{ by_day() }}
select
    customer_id,
    age_band,
    income_band,
    household_size,
    kids_count,
    event_date
from {{ ref('stg_customers') }}
