{# What engines spell differently. Everything else in the models is SQL that DuckDB, PostgreSQL, Spark and Snowflake share. #}

{# The sum of a column of floats, to the bit whatever the order of its rows: floats are not added in the same order twice.
   One row is left as it is; of several the sum is exact to a millionth. #}
{% macro exact_sum(column) -%}
    case when count(*) = 1 then max({{ column }})
        else cast(sum(cast({{ column }} as decimal(38, 6))) as {{ double_type() }}) end
{%- endmacro %}

{% macro double_type() %}{{ return(adapter.dispatch('double_type')()) }}{% endmacro %}
{% macro default__double_type() %}double precision{% endmacro %}
{% macro spark__double_type() %}double{% endmacro %}
