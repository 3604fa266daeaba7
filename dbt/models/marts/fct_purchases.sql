{{ by_day() }}
with promoted as (
    select
        purchases.order_id,
        purchases.product_id,
        purchases.event_date,
        max(promotions.is_on_display) as is_on_display,
        max(promotions.is_in_mailer) as is_in_mailer
    from {{ ref('int_order_products') }} as purchases
    inner join {{ ref('int_open_promotions') }} as promotions
        on promotions.product_id = purchases.product_id
        and promotions.store_id = purchases.store_id
        and promotions.valid_from <= purchases.event_date
        and promotions.valid_to >= purchases.event_date
        and promotions.known_on <= purchases.event_date
        and {{ dbt.dateadd('day', var('promotion_days'), 'promotions.known_on') }} >= purchases.event_date
    group by purchases.order_id, purchases.product_id, purchases.event_date
)
select
    purchases.order_id,
    purchases.customer_id,
    purchases.product_id,
    purchases.store_id,
    purchases.quantity,
    purchases.amount,
    purchases.discount,
    coalesce(promoted.is_on_display, 0) as is_on_display,
    coalesce(promoted.is_in_mailer, 0) as is_in_mailer,
    purchases.event_date
from {{ ref('int_order_products') }} as purchases
left join promoted
    on promoted.order_id = purchases.order_id
    and promoted.product_id = purchases.product_id
    and promoted.event_date = purchases.event_date
