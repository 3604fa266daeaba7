select
    product_id,
    coalesce(department, 'unknown') as department,
    coalesce(category, 'unknown') as category,
    coalesce(type, 'unknown') as type,
    coalesce(brand, 'unknown') as brand,
    is_sellable,
    event_date
from {{ source('lake', 'products') }}
where {{ in_run_window('event_date') }}
