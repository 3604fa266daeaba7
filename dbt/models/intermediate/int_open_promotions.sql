{# Promotions that may be valid on a day of the run, also those that became known before it: days are built in any order.
   Not made one row each: fct_purchases looks at the few that its purchases meet. #}
select
    product_id,
    store_id,
    valid_from,
    valid_to,
    event_date as known_on,
    case when channel = 'display' then 1 else 0 end as is_on_display,
    case when channel = 'mailer' then 1 else 0 end as is_in_mailer
from {{ source('lake', 'exposures') }}
where channel in ('display', 'mailer')
    and placement is not null
    and valid_to >= (select min(first_day) from {{ source('lake', 'run_window') }})
    and valid_from <= (select max(last_day) from {{ source('lake', 'run_window') }})
