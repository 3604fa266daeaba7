{# The business days of this run, both included. They are a table, not vars: changing vars would defeat partial parsing. #}
{% macro in_run_window(column) -%}
    {{ column }} >= (select min(first_day) from {{ source('lake', 'run_window') }})
    and {{ column }} <= (select max(last_day) from {{ source('lake', 'run_window') }})
{%- endmacro %}

{# Every mart is rebuilt by business day: the days of the run are deleted and inserted again, also days that have no rows now. #}
{% macro by_day() %}{{ return(adapter.dispatch('by_day')()) }}{% endmacro %}

{% macro default__by_day() -%}
    {{ config(materialized='incremental', incremental_strategy='append', on_schema_change='fail', pre_hook=delete_run_window()) }}
{%- endmacro %}

{% macro postgres__by_day() -%}
    {{ config(materialized='incremental', incremental_strategy='append', on_schema_change='fail', pre_hook=delete_run_window(),
        indexes=[{'columns': ['event_date'], 'type': 'brin'}]) }}
{%- endmacro %}

{# Spark replaces whole partitions; the partition column is last. #}
{% macro spark__by_day() -%}
    {{ config(materialized='incremental', incremental_strategy='insert_overwrite', partition_by=['event_date'], file_format='parquet') }}
{%- endmacro %}

{# Rendered when the model runs, in its transaction. #}
{% macro delete_run_window() -%}
    {% raw %}{% if is_incremental() %}delete from {{ this }} where {{ in_run_window('event_date') }}{% endif %}{% endraw %}
{%- endmacro %}

{# Schema names as written, not prefixed with the target's. #}
{% macro generate_schema_name(custom_schema_name, node) -%}
    {{ custom_schema_name if custom_schema_name else target.schema }}
{%- endmacro %}
