{{ by_day() }}
select
    product_id,
    store_id,
    valid_from,
    valid_to,
    display_placement,
    mailer_placement,
    event_date
from {{ ref('int_store_promotions') }}
