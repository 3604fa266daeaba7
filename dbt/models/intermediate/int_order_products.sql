{# Lines of one product in one order are one purchase (docs/design/evaluation.md, "On the sample"). #}
select
    order_id,
    product_id,
    event_date,
    min(customer_id) as customer_id,
    min(store_id) as store_id,
    {{ exact_sum('quantity') }} as quantity,
    {{ exact_sum('amount') }} as amount,
    {{ exact_sum('discount') }} as discount,
    count(*) as n_lines
from {{ ref('stg_purchases') }}
group by order_id, product_id, event_date
