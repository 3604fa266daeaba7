{# Display and mailer rows of one product, store and week become one row: a join on it cannot fan out. #}
select
    product_id,
    store_id,
    valid_from,
    valid_to,
    event_date,
    max(case when channel = 'display' then placement end) as display_placement,
    max(case when channel = 'mailer' then placement end) as mailer_placement
from {{ ref('stg_exposures') }}
where channel in ('display', 'mailer')
group by product_id, store_id, valid_from, valid_to, event_date
