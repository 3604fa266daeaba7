"""What names a customer: places that say so for every id, words of their own for ids that are hardly anything else."""

from __future__ import annotations

import pyarrow
import pytest

from pipeline_assets.resources.mentions import Mentions


@pytest.mark.parametrize(
    "text",
    [
        '{"customer_id": "100", "product_id": "7"}',
        r"{\"customer_id\": \"100\"}",
        "<td>100 (heavy)</td>",
        "| customer_id | rank |\n|---|---|\n| 100 | 1 |",
    ],
)
def test_a_place_that_says_so(text: str) -> None:
    """Named, and not any more when it is redacted; the rest of the text stays."""
    her = Mentions("100")
    clean = her.redacted(text.encode())
    assert (her.named_in(text.encode()), her.named_in(clean)) == (True, False)
    assert clean.replace(b"erased", b"100") == text.encode()


@pytest.mark.parametrize("text", ["100 rows", '{"customer_id": "1001"}', '{"product_id": "100"}', "| rows |\n| 100 |"])
def test_a_number_is_not_a_customer(text: str) -> None:
    """Negative control: the same digits as something else stay what they are."""
    her = Mentions("100")
    assert not her.named_in(text.encode())
    assert her.redacted(text.encode()) == text.encode()


def test_an_id_with_letters_counts_as_a_word() -> None:
    """Anywhere, but not as a part of another word or as a colour."""
    her = Mentions("abc46")
    assert her.named_in(b"bought by abc46.")
    assert not any(map(her.named_in, (b"abc461", b"xabc46", b"color: #abc46;")))


def test_an_id_in_other_letters() -> None:
    """As JSON and HTML write it."""
    assert Mentions("Zoë&1").named_in(b'{"customer_id": "Zo\\u00eb&1"}')
    assert Mentions("Zoë&1").named_in("<td>Zoë&amp;1</td>".encode())


@pytest.mark.parametrize("customer", ["c46", "100", "123456", "guest"])
def test_a_short_id_is_a_word_of_others(customer: str) -> None:
    """Names of variables, figures, words of a page: only a place that says so counts."""
    assert not Mentions(customer).named_in(f"var {customer} = 1".encode())


def test_rows() -> None:
    """Hers by the column, or by a text; None where there are none."""
    rows = pyarrow.table({"customer_id": ["100", "7", None], "line": [None, '{"customer_id": "100"}', "100 rows"]})
    held = Mentions("100").rows(rows)
    assert held is not None
    assert held.to_pylist() == [True, True, False]
    assert Mentions("8").rows(rows) is None
