"""Where a text or a row is about one customer. Ids are the shop's: `100` is a customer, and a hundred other things.

Belongs here: what counts as naming a customer. Does not: where that is looked for (erasure_*.py).
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable

import pyarrow
import pyarrow.compute as pc

from pipeline_assets.recommender.columns import CUSTOMER_ID, PAIR_FEATURES_BLOB

ERASED = b"erased"  # takes the place of an id in texts
_MIXED, _DIGITS, _LETTERS = (
    5,
    7,
    12,
)  # so many characters of letters and digits, digits alone or letters alone are hardly anything else
_IN_BINARY = 6  # below, bytes of compressed content are her id by chance: 16 million places have every three characters


class Mentions:
    """One customer's id, as texts name it.

    A place that says so (`"customer_id": "100"`, a cell of a table with that column, `100 (heavy)` on an evaluation page) always counts. An id
    that is hardly anything else also counts as a word of its own, wherever it stands.
    """

    def __init__(self, customer_id: str) -> None:
        self.customer_id = customer_id
        forms = {customer_id, json.dumps(customer_id)[1:-1], html.escape(customer_id)}
        self._forms = [form.encode() for form in sorted(forms, key=len, reverse=True)]
        name = b"(?:" + b"|".join(map(re.escape, self._forms)) + b")"
        has_digit = any(map(str.isdigit, customer_id))
        enough = _DIGITS if customer_id.isdigit() else _MIXED if has_digit else _LETTERS
        self.is_distinctive = len(customer_id) >= enough
        said = [
            rb'(customer_id\\*"\s*:\s*\\*")' + name + rb'(?=\\*")',
            rb"((?<![\w#]))" + name + rb"(?= \((?:light|medium|heavy)\))",
        ]
        word = [rb"((?<![A-Za-z0-9_#]))" + name + rb"(?![A-Za-z0-9_])"] if self.is_distinctive else []
        self._anywhere = [re.compile(pattern) for pattern in (*said, *word)]
        self._cell = re.compile(rb"(\| *)" + name + rb"(?= *\|)")  # of a text table

    def _patterns(self, text: bytes) -> list[re.Pattern[bytes]]:
        if not any(form in text for form in self._forms):
            return []
        return [*self._anywhere, self._cell] if CUSTOMER_ID.encode() in text else self._anywhere

    def named_in_any(self, pieces: Iterable[bytes]) -> bool:
        """Whether pieces of a file, which are no texts of their own, name her: a cell is of a table only in one text."""
        return any(pattern.search(piece) for piece in pieces for pattern in self._anywhere)

    def named_in(self, text: bytes) -> bool:
        """Whether a text names her."""
        return any(pattern.search(text) for pattern in self._patterns(text))

    def named_in_binary(self, content: bytes) -> bool:
        """Whether content that is no text has her id as a word; for short ids nobody could tell."""
        return len(self.customer_id) >= _IN_BINARY and self.is_distinctive and self.named_in(content)

    def redacted(self, text: bytes) -> bytes:
        """The text without her id."""
        for pattern in self._patterns(text):
            text = pattern.sub(rb"\g<1>" + ERASED, text)
        return text

    def columns(self, schema: pyarrow.Schema) -> list[str]:
        """Columns that can name a customer."""
        return [
            field.name
            for field in schema
            if (pyarrow.types.is_string(field.type) or pyarrow.types.is_large_string(field.type))
            or (pyarrow.types.is_binary(field.type) and field.name != PAIR_FEATURES_BLOB)
        ]

    def rows(self, rows: pyarrow.Table) -> pyarrow.ChunkedArray | None:
        """Which rows are about her, or name her in a text; None for none."""
        found = None
        for name in self.columns(rows.schema):
            column = rows[name]
            if name == CUSTOMER_ID:
                held = pc.fill_null(pc.equal(column, pyarrow.scalar(self.customer_id, column.type)), False)
            else:
                held = pc.fill_null(pc.match_substring(column, self.customer_id), False)
                if pc.any(held).as_py():
                    held = pyarrow.chunked_array([pyarrow.array(list(map(self._value, column.to_pylist())))])
            if pc.any(held).as_py():
                found = held if found is None else pc.or_(found, held)
        return found

    def _value(self, value: str | bytes | None) -> bool:
        return value is not None and self.named_in(value.encode() if isinstance(value, str) else value)
