"""Bytes that are no UTF-8, and huge fields, cost the rows that have them, and neither the file nor the memory."""

from __future__ import annotations

import gzip
import io
import json
from datetime import date
from pathlib import Path

import pytest

from pipeline_assets.recommender.errors import SourceError
from pipeline_assets.schemas.feeds import FEEDS
from pipeline_assets.schemas.validation import ValidationPolicy, validate
from pipeline_assets.sources.base import SourceCalendar
from pipeline_assets.sources.files import FilesSource
from pipeline_assets.sources.mapping import SourceMapping
from pipeline_assets.sources.storage import _decoded

DAY = date(2017, 2, 12)
PURCHASES = FEEDS["purchases"]
LINES = [
    {"event_id": f"e{n}", "order_id": "o1", "customer_id": "caf\u00e9", "product_id": f"p{n}", "quantity": 1, "amount": 2, "discount": 0,
     "event_ts": "2017-02-12T17:00:00Z"}
    for n in range(10)
]  # fmt: skip


def text(kind: str) -> bytes:
    """Ten lines, the é of the last one in Latin-1."""
    if kind == "csv":
        lines = [",".join(LINES[0]), *(",".join(str(value) for value in line.values()) for line in LINES)]
    else:
        lines = [json.dumps(line, ensure_ascii=False) for line in LINES]
    head, last = "\n".join(lines[:-1]).encode(), lines[-1].encode("latin-1")
    return head + b"\n" + last + b"\n"


def source(root: Path) -> FilesSource:
    calendar = SourceCalendar("America/New_York", DAY, DAY)
    return FilesSource(str(root / "drops"), SourceMapping(), calendar, 0.5, root / "spool")


@pytest.mark.parametrize(
    "name", ["purchases/2017-02-12.csv", "purchases/2017-02-12.csv.gz", "purchases/2017-02-12.jsonl", "purchases.csv"]
)
def test_a_broken_encoding_costs_one_row(tmp_path: Path, name: str) -> None:
    """Nine of ten rows are valid, é included; the tenth is in quarantine with the mark where the byte was."""
    file = tmp_path / "drops" / name
    file.parent.mkdir(parents=True)
    content = text("jsonl" if "jsonl" in name else "csv")
    file.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    rows = source(tmp_path).read(PURCHASES, [DAY])
    result = validate(PURCHASES, rows, [DAY], ValidationPolicy(0.2, 0.5))
    assert set(result.valid["customer_id"].to_pylist()) == {"caf\u00e9"}
    (row,) = result.quarantined.to_pylist()
    assert (row["rule"], row["customer_id"], result.verdicts[0].status) == ("id_readable", "caf\ufffd", "passed")


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_huge_field_costs_one_row(tmp_path: Path, kind: str) -> None:
    """5 MB of customer: nine rows are valid, and 2,000 characters of the tenth are kept."""
    folder = tmp_path / "drops" / "purchases"
    folder.mkdir(parents=True)
    content = text(kind).replace(b"caf\xe9", b"x" * 5_000_000)
    (folder / f"{DAY}.{kind}").write_bytes(content)
    result = validate(PURCHASES, source(tmp_path).read(PURCHASES, [DAY]), [DAY], ValidationPolicy(0.2, 0.5))
    (row,) = result.quarantined.to_pylist()
    assert (len(result.valid), row["rule"], len(row["customer_id"])) == (9, "id_length", 2_000)


def test_a_text_that_is_unreadable_for_another_reason_is_refused(tmp_path: Path) -> None:
    """There is nothing to mend, and the message is DuckDB's."""
    folder = tmp_path / "drops" / "purchases"
    folder.mkdir(parents=True)
    (folder / "2017-02-12.jsonl").write_text('{"event_id": "e1"\n')
    with pytest.raises(SourceError, match=r"2017-02-12\.jsonl"):
        source(tmp_path).read(PURCHASES, [DAY])
    assert list(tmp_path.glob("spool/mended-*/*")) == []


def test_characters_that_cross_a_chunk_are_whole() -> None:
    """A megabyte and a half of é, two bytes each, from an odd place on: nothing is mended."""
    content, target = b"x" + "\u00e9".encode() * 800_000, io.BytesIO()
    assert not _decoded(io.BytesIO(content), target)
    assert target.getvalue() == content
    assert _decoded(io.BytesIO(content + b"\xe9"), io.BytesIO())
