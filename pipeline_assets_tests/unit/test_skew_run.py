"""Which answers of the API are comparable with the model's own ranking."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline_assets.resources.skew_run import is_plain

LINE: dict[str, Any] = {"asked": {"k": 5}, "applied": [], "recent": []}


def test_a_list_as_the_model_ranked_it_is_plain() -> None:
    """A length, reasons and a place to show it change no order."""
    assert is_plain(LINE)
    assert is_plain({**LINE, "asked": {"k": 5, "explain": True, "context": {"placement": "home"}}})


@pytest.mark.parametrize(
    "changed",
    [
        {"asked": {"k": 5, "basket": ["p1"]}},
        {"asked": {"k": 5, "filters": {"brand": ["b"]}}},
        {"asked": {"k": 5, "exclude": ["p1"]}},
        {"applied": [["cap", "p1", 1, None]]},
        {"recent": [["e1", "view", "p1", "2017-11-06T08:00:00+00:00"]]},
    ],
    ids=["basket", "filter", "exclusion", "rule", "event"],
)
def test_what_changes_the_list_on_purpose_is_no_skew(changed: dict[str, Any]) -> None:
    """Negative controls: each alone."""
    assert not is_plain({**LINE, **changed})
