"""The mapping file: what it may say, and what is refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline_assets.recommender.errors import ConfigurationError
from pipeline_assets.sources.mapping import FeedMapping, SourceMapping, read_mapping


def mapping_file(folder: Path, text: str) -> Path:
    path = folder / "mapping.toml"
    path.write_text(text)
    return path


def test_no_mapping_file_means_the_contracts_names() -> None:
    """None is an empty mapping: a feed is where its name says."""
    mapping = read_mapping(None)
    assert mapping == SourceMapping()
    assert mapping.place("purchases") == "purchases"


def test_everything_a_section_may_say(tmp_path: Path) -> None:
    """Zone, place, filter, day, time of change and columns; a feed that is not written down is known to be so."""
    text = """
    time_zone = "Europe/Berlin"
    [purchases]
    from = "verkauf"
    filter = "storno = 'nein; -- nie'"
    day = "buchungstag"
    changed = "geaendert"
    [purchases.columns]
    amount = "preis * menge"
    """
    mapping = read_mapping(mapping_file(tmp_path, text))
    columns = {"amount": "preis * menge"}
    wanted = FeedMapping("verkauf", "storno = 'nein; -- nie'", "buchungstag", "geaendert", columns)
    assert mapping == SourceMapping("Europe/Berlin", {"purchases": wanted})
    assert "products" not in mapping.feeds


def test_columns_are_taken_by_name_and_the_mapping_has_the_last_word() -> None:
    """quantity is there under its name; amount is there too and still calculated; store_id is nowhere."""
    mapping = FeedMapping(columns={"amount": "preis"})
    found = mapping.selected(["quantity", "amount", "preis"], ["quantity", "amount", "store_id"])
    assert found == {"quantity": '"quantity"', "amount": "preis"}


@pytest.mark.parametrize(
    ("text", "culprit", "found", "wanted"),
    [
        ('[purchases.columns]\nkunde = "customer_id"\n', "[purchases.columns]", "kunde", "customer_id"),
        ('[sales.columns]\namount = "preis"\n', "", "section [sales]", "purchases, exposures, products, customers"),
        ('timezone = "UTC"\n', "", "key timezone", "time_zone"),
        ('time_zone = "Berlin"\n', "key time_zone", "'Berlin'", "Europe/Berlin"),
        ("time_zone = 1\n", "key time_zone", "1", "Europe/Berlin"),
        (
            '[purchases]\ntable = "x"\nwhere = "y"\n',
            "[purchases]",
            "table, where",
            "from, filter, day, changed, columns",
        ),
        ("[purchases]\nfilter = true\n", "[purchases], key filter", "True", "a text"),
        ('[purchases]\nday = " "\n', "[purchases], key day", "' '", "a text"),
        ("purchases = 1\n", "[purchases]", "1", "a table [purchases]"),
        ("[purchases]\ncolumns = 1\n", "key columns", "1", "[purchases.columns]"),
        ('[purchases.columns]\namount = "1; drop table x"\n', "key amount", ";", "one SQL expression"),
        ('[purchases.columns]\namount = "1 -- x"\n', "key amount", "--", "one SQL expression"),
        ('[purchases]\nfilter = "a /* b"\n', "key filter", "/*", "one SQL expression"),
    ],
)
def test_what_is_not_understood_is_refused_by_name(
    tmp_path: Path, text: str, culprit: str, found: str, wanted: str
) -> None:
    """The message has the file, the section or key, what it says, and what it could say."""
    path = mapping_file(tmp_path, text)
    with pytest.raises(ConfigurationError) as error:
        read_mapping(path)
    assert str(path) in error.value.culprit
    assert culprit in error.value.culprit
    assert found in str(error.value.found)
    assert wanted in str(error.value.wanted)
    assert error.value.fix


@pytest.mark.parametrize("content", [b"[purchases.columns\n", b"\xff\xfe", None], ids=["no TOML", "no text", "no file"])
def test_mapping_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None) -> None:
    """Whatever is wrong with it."""
    path = tmp_path / "mapping.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=str(path)):
        read_mapping(path)
