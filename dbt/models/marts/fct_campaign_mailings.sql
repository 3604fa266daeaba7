{{ by_day() }}
select distinct
    campaign_id,
    customer_id,
    placement as campaign_type,
    valid_from,
    valid_to,
    event_date
from {{ ref('stg_exposures') }}
where channel = 'campaign'
