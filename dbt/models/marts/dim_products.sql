{{ by_day() }}
select
    product_id,
    department,
    category,
    type,
    brand,
    is_sellable,
    event_date
from {{ ref('stg_products') }}
