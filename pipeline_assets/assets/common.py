"""What every asset shell shares: owners, the standard metadata keys, column schemas for the UI.

Belongs here: the few metadata keys that line up across assets. Does not: anything an asset computes.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import date
from typing import Any

import dagster as dg
import pandas as pd
import pandera.pandas as pa
import pyarrow

from pipeline_assets.partitions import days_of
from pipeline_assets.resources.content import combined

DATA_TEAM = ["team:data-platform"]
ML_TEAM = ["team:recommendations"]


def column_schema(schema: pa.DataFrameSchema) -> dg.TableSchema:
    """The UI's columns, from the one declaration of the table."""
    return dg.TableSchema(
        columns=[
            dg.TableColumn(
                name,
                str(column.dtype),
                description=column.description,
                constraints=dg.TableColumnConstraints(
                    nullable=bool(column.nullable),
                    unique=bool(column.unique),
                    other=[str(check.name) for check in column.checks],
                ),
            )
            for name, column in schema.columns.items()
        ]
    )


def arrow_column_schema(schema: pyarrow.Schema) -> dg.TableSchema:
    """The UI's columns of a table that is declared as an Arrow schema."""
    return dg.TableSchema(columns=[dg.TableColumn(field.name, str(field.type)) for field in schema])


def preview(frame: pd.DataFrame, rows: int = 5) -> dg.MarkdownMetadataValue:
    """The first rows, as a person wants to see them."""
    return dg.MetadataValue.md(frame.head(rows).to_markdown(index=False))


def records(frame: pd.DataFrame) -> dg.TableMetadataValue:
    """A whole table in the UI; for small ones. Text, numbers and booleans stay what they are."""
    plain = frame.astype(object).where(frame.notna(), None)
    return dg.MetadataValue.table(
        records=[
            dg.TableRecord(
                {str(name): value.item() if hasattr(value, "item") else value for name, value in row.items()}
            )
            for row in plain.to_dict("records")
        ]
    )


def bullets(lines: Sequence[str]) -> dg.MarkdownMetadataValue:
    """Reasons, one a line."""
    return dg.MetadataValue.md("\n".join(f"- {line}" for line in lines))


def png(image: bytes, title: str) -> dg.MarkdownMetadataValue:
    """A plot in the UI."""
    import base64

    return dg.MetadataValue.md(f"![{title}](data:image/png;base64,{base64.b64encode(image).decode()})")


def per_day(
    context: dg.AssetExecutionContext, rows: Mapping[date, int], digests: Mapping[date, str], **more: Mapping[date, Any]
) -> None:
    """Attach row count, digest and more to each partition of a range run, so that plots line up by day."""
    for day, n_rows in rows.items():
        values = {name: by_day[day] for name, by_day in more.items()}
        context.add_asset_metadata(
            {"dagster/row_count": n_rows, "digest": digests[day], **values}, partition_key=day.isoformat()
        )


def totals(rows: Sequence[int], **more: Any) -> dict[str, Any]:
    """Metadata of a run as a whole."""
    return {"run_rows": sum(rows), "run_days": len(rows), **more}


def each_day(context: dg.AssetExecutionContext, one_day: Callable[[date], dict[str, Any]]) -> dg.MaterializeResult:
    """Compute every day of the run, in order, and attach each day's metadata to its own partition.

    A range of days is one run, with one set of imports and connections. `one_day` returns the day's metadata; its `digest`,
    where it has one, becomes the data version.
    """
    digests = []
    for day in days_of(context):
        metadata = one_day(day)
        context.add_asset_metadata(metadata, partition_key=day.isoformat())
        if "digest" in metadata:
            digests.append(str(metadata["digest"]))
    return dg.MaterializeResult(data_version=dg.DataVersion(combined(digests)) if digests else None)
