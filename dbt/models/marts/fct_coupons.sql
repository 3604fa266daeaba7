{{ by_day() }}
select distinct
    campaign_id,
    product_id,
    valid_from,
    valid_to,
    event_date
from {{ ref('stg_exposures') }}
where channel = 'coupon'
