select
    event_id,
    product_id,
    channel,
    placement,
    customer_id,
    store_id,
    campaign_id,
    valid_from,
    valid_to,
    event_date
from {{ source('lake', 'exposures') }}
where {{ in_run_window('event_date') }}
