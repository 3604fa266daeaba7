{# The business days of this run, both included. They are a table, not vars: changing vars would defeat partial parsing. #}
{% macro in_run_window(column) -%}
    {{ column }} >= (select min(first_day) from {{ source('lake', 'run_window') }})
    and {{ column }} <= (select max(last_day) from {{ source('lake', 'run_window') }})
{%- endmacro %}

{# Every mart is rebuilt by business day: the days of the run are deleted and inserted again. #}
{% macro by_day() -%}
    {{ config(materialized='incremental', incremental_strategy='delete+insert', unique_key='event_date', on_schema_change='fail') }}
{%- endmacro %}

{# Schema names as written, not prefixed with the target's. #}
{% macro generate_schema_name(custom_schema_name, node) -%}
    {{ custom_schema_name if custom_schema_name else target.schema }}
{%- endmacro %}
