select
    customer_id,
    coalesce(age_band, 'unknown') as age_band,
    coalesce(income_band, 'unknown') as income_band,
    coalesce(household_size, 'unknown') as household_size,
    coalesce(kids_count, 'unknown') as kids_count,
    event_date
from {{ source('lake', 'customers') }}
where {{ in_run_window('event_date') }}
