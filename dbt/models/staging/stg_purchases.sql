select
    event_id,
    order_id,
    customer_id,
    product_id,
    store_id,
    quantity,
    amount,
    discount,
    event_date
from {{ source('lake', 'purchases') }}
where {{ in_run_window('event_date') }}
