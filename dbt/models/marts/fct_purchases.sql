{{ by_day() }}
with promotions as (
    select product_id, store_id, valid_from, valid_to, display_placement, mailer_placement
    from {{ ref('fct_store_promotions') }}
    where valid_to >= (select min(first_day) from {{ source('lake', 'run_window') }})
        and valid_from <= (select max(last_day) from {{ source('lake', 'run_window') }})
)
select
    purchases.order_id,
    purchases.customer_id,
    purchases.product_id,
    purchases.store_id,
    purchases.quantity,
    purchases.amount,
    purchases.discount,
    case when promotions.display_placement is not null then 1 else 0 end as is_on_display,
    case when promotions.mailer_placement is not null then 1 else 0 end as is_in_mailer,
    purchases.event_date
from {{ ref('int_order_products') }} as purchases
left join promotions
    on promotions.product_id = purchases.product_id
    and promotions.store_id = purchases.store_id
    and promotions.valid_from <= purchases.event_date
    and promotions.valid_to >= purchases.event_date
