"""conform: a mapped view becomes the contract's types, or the one column that cannot is named."""

from __future__ import annotations

from collections.abc import Iterator

import duckdb
import pyarrow
import pytest

from pipeline_assets.recommender.errors import SchemaError
from pipeline_assets.schemas.feeds import FEEDS
from pipeline_assets.schemas.validation import PARSE_ERRORS, ValidationPolicy, validate
from pipeline_assets.sources.base import conform
from pipeline_assets_tests import scenario

PURCHASES = FEEDS["purchases"]
WHERE = "purchases/2017-02-19.csv"
DAY = scenario.AS_OF

# Expressions of ten delivered lines with the contract's types; tests replace some of them. n is 0 .. 9.
COLUMNS = {
    "event_id": "'e' || n", "order_id": "'o' || n", "customer_id": "'ann'", "product_id": "'milk'", "store_id": "'s1'",
    "quantity": "1.0::double", "amount": "2.0::double", "discount": "0.0::double",
    "event_ts": "timestamptz '2017-02-19 12:00:00+00'", "event_date": "date '2017-02-19'",
}  # fmt: skip


@pytest.fixture
def con() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect(config={"threads": 1}) as connection:
        connection.execute("set timezone = 'UTC'")
        yield connection


def delivered(con: duckdb.DuckDBPyConnection, rows: int = 10, **changes: str | None) -> pyarrow.Table:
    """Ten lines through `conform`; a change of None leaves the column out."""
    columns = {name: expression for name, expression in {**COLUMNS, **changes}.items() if expression is not None}
    selected = ", ".join(f"{expression} as {name}" for name, expression in columns.items())
    con.execute(f"create view mapped as select {selected} from (select unnest(range({rows})) as n)")
    return conform(con, "mapped", PURCHASES, max_unparsed_share=0.5, where=WHERE)


def test_columns_have_the_contracts_types_and_order(con: duckdb.DuckDBPyConnection) -> None:
    """The feed's columns in order, then parse_errors, which is null."""
    table = delivered(con)
    assert table.schema.equals(PURCHASES.arrow_schema.append(pyarrow.field(PARSE_ERRORS, pyarrow.string())))
    assert table[PARSE_ERRORS].null_count == 10


def test_delivered_order_and_extra_columns_do_not_matter(con: duckdb.DuckDBPyConnection) -> None:
    """Columns are found by name; what the contract does not have is left behind."""
    con.execute(f"create view other as select * from (select 7 as till, {COLUMNS['amount']} as amount)")
    backwards = dict(reversed(COLUMNS.items()))
    con.execute(
        f"create view mapped as select 7 as till, {', '.join(f'{e} as {c}' for c, e in backwards.items())} from (select 1 as n)"
    )
    assert conform(con, "mapped", PURCHASES, 0.5, WHERE).column_names == [*PURCHASES.columns, PARSE_ERRORS]


def test_convertible_types_are_converted(con: duckdb.DuckDBPyConnection) -> None:
    """Numbers as ids become text, integers and decimals become numbers, text and a naive time become UTC moments."""
    table = delivered(
        con, customer_id="42", quantity="3::integer", amount="2.50::decimal(9, 2)", discount="'0.5'", event_date="'2017-02-19'",
        event_ts="timestamp '2017-02-19 12:00:00'",
    )  # fmt: skip
    row = table.to_pylist()[0]
    assert (row["customer_id"], row["quantity"], row["amount"], row["discount"]) == ("42", 3.0, 2.5, 0.5)
    assert (row["event_date"], row["event_ts"].isoformat()) == (DAY, "2017-02-19T12:00:00+00:00")
    assert table[PARSE_ERRORS].null_count == 10


def test_text_moment_with_offset_is_moved_to_utc(con: duckdb.DuckDBPyConnection) -> None:
    """12:00 in New York is 17:00 UTC."""
    moment = delivered(con, event_ts="'2017-02-19 12:00:00-05'")["event_ts"][0].as_py()
    assert moment.isoformat() == "2017-02-19T17:00:00+00:00"


@pytest.mark.parametrize("column", [name for name, column in PURCHASES.schema.columns.items() if not column.nullable])
def test_missing_required_column_is_named_with_found_and_wanted(con: duckdb.DuckDBPyConnection, column: str) -> None:
    """The message has the column, the file, what was there, the wanted type and what to do."""
    with pytest.raises(SchemaError) as error:
        delivered(con, **{column: None})
    assert error.value.culprit == f"column {column} of {WHERE}"
    assert str(error.value.found) == "columns " + ", ".join(sorted(set(COLUMNS) - {column}))
    assert str(error.value.wanted).startswith(f"{column} (")
    assert "map" in error.value.fix


def test_renamed_column_is_pointed_at(con: duckdb.DuckDBPyConnection) -> None:
    """amount is gone and price has come: perhaps that is it."""
    with pytest.raises(SchemaError, match="perhaps it was renamed to one of: price"):
        delivered(con, amount=None, price=COLUMNS["amount"])


def test_missing_optional_column_is_filled_with_null(con: duckdb.DuckDBPyConnection) -> None:
    """A web shop has no stores."""
    table = delivered(con, store_id=None)
    assert table["store_id"].null_count == 10
    assert table.schema.field("store_id").type == pyarrow.string()


def test_retyped_column_is_blocked_naming_it(con: duckdb.DuckDBPyConnection) -> None:
    """Quantities that became words: 10 of 10 cannot be read, above half."""
    with pytest.raises(SchemaError) as error:
        delivered(con, quantity="'two'")
    assert error.value.culprit == f"column quantity of {WHERE}"
    assert error.value.found == "type VARCHAR, 10 of 10 values unreadable on 2017-02-19"
    assert error.value.wanted == "values that read as double"


def test_second_of_two_retyped_columns_is_not_hidden(con: duckdb.DuckDBPyConnection) -> None:
    """quantity is unreadable in 3 rows, amount in 8, in all rows of quantity's too: amount is the retyped one."""
    with pytest.raises(SchemaError, match="column amount"):
        delivered(con, quantity="if(n < 3, 'x', '1')", amount="if(n < 8, 'free', '2')")


@pytest.mark.parametrize(("bad", "is_blocked"), [(5, False), (6, True)])
def test_half_of_a_column_may_be_unreadable(con: duckdb.DuckDBPyConnection, bad: int, is_blocked: bool) -> None:
    """The share is 0.5: 5 of 10 are rows to quarantine, 6 are another type."""
    changes = {"amount": f"if(n < {bad}, 'free', '2.0')"}
    if is_blocked:
        with pytest.raises(SchemaError):
            delivered(con, **changes)
    else:
        assert delivered(con, **changes)["amount"].null_count == 5


def test_one_unreadable_value_costs_one_row(con: duckdb.DuckDBPyConnection) -> None:
    """Its text is kept beside it; validation quarantines that row as unreadable and keeps the nine others."""
    table = delivered(con, amount="if(n = 4, '2,00', '2.0')")
    assert table[PARSE_ERRORS].to_pylist() == [None] * 4 + ["amount=2,00"] + [None] * 5
    result = validate(PURCHASES, table, [DAY], ValidationPolicy(0.2, 0.5))
    assert (len(result.valid), result.quarantined["rule"].to_pylist()) == (9, ["unreadable"])


def test_two_unreadable_values_of_a_row_are_both_kept(con: duckdb.DuckDBPyConnection) -> None:
    """One row, one text."""
    table = delivered(con, amount="if(n = 0, 'free', '2.0')", quantity="if(n = 0, 'two', '1')")
    assert table[PARSE_ERRORS][0].as_py() == "quantity=two; amount=free"


def test_null_is_not_unreadable(con: duckdb.DuckDBPyConnection) -> None:
    """An empty value is the business of the rules, not of the types."""
    table = delivered(con, amount="if(n = 0, null, '2.0')")
    assert (table["amount"].null_count, table[PARSE_ERRORS].null_count) == (1, 10)


def test_no_rows_are_an_empty_table_with_the_types(con: duckdb.DuckDBPyConnection) -> None:
    """An empty file has a header and nothing to complain about."""
    table = delivered(con, rows=0, amount="'2.0'")
    assert len(table) == 0
    assert table.schema.names == [*PURCHASES.columns, PARSE_ERRORS]
