"""Guardrails on arms that a reader can count."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pipeline_assets.recommender.errors import ConfigurationError
from pipeline_assets.serving.guardrails import GUARDRAILS, Arm, Limits, compare

LIMITS = Limits()
N = 1_000  # answers of an arm, and customers; ten places of 2,000 products, each customer with products of their own
SLATES = {f"c{n}": tuple(f"p{(10 * n + place) % 2_000}" for place in range(10)) for n in range(N)}
GOOD = Arm(
    answers=N,
    latency_ms=(5.0,) * N,
    slates=SLATES,
    prices=(2.0, 4.0) * (N // 2),
    changes=(0.2, 0.4) * (N // 2),
    hits=(0.0, 0.0, 0.0, 0.8) * (N // 4),
)


def verdict(name: str, **changes: object) -> str:
    """What `name` says of a candidate that is the good arm with `changes`."""
    (found,) = compare(GOOD, replace(GOOD, **changes), LIMITS, [name])  # type: ignore[arg-type]
    return found.verdict


def test_an_equal_arm_is_ok_everywhere() -> None:
    """The same arm twice breaks no guardrail, and each names its figures."""
    found = compare(GOOD, GOOD, LIMITS, list(GUARDRAILS))
    assert {finding.verdict for finding in found} == {"ok"}
    assert all(any(character.isdigit() for character in finding.detail) for finding in found)


@pytest.mark.parametrize("name", GUARDRAILS)
def test_no_data_is_inconclusive(name: str) -> None:
    """Nothing was answered, by either arm or by one of them: nobody says ok."""
    for stable, candidate in ((Arm(), Arm()), (GOOD, Arm())):
        assert compare(stable, candidate, LIMITS, [name])[0].verdict == "inconclusive"


@pytest.mark.parametrize("name", sorted(set(GUARDRAILS) - {"change"}))
def test_a_stable_arm_without_data_is_inconclusive(name: str) -> None:
    """There is nothing to compare with; `change` is counted on requests that both ranked."""
    assert compare(Arm(), GOOD, LIMITS, [name])[0].verdict == "inconclusive"


@pytest.mark.parametrize(
    ("name", "bad", "bearable"),
    [
        ("errors", {"errors": 50}, {"errors": 10}),  # 5 % against 1 % of 1,000; the margin is 1 %
        ("fallback", {"fallbacks": 80}, {"fallbacks": 20}),
        ("empty", {"empty": 50}, {"empty": 10}),
        ("latency", {"latency_ms": (50.0,) * N}, {"latency_ms": (24.0,) * N}),  # 5 ms may become 25
        ("coverage", {"slates": dict.fromkeys(SLATES, SLATES["c0"])}, {"slates": dict(list(SLATES.items())[:600])}),
        (
            "top_item",
            {"slates": {c: ("p0", *slate[1:]) for c, slate in SLATES.items()}},
            {"slates": {c: ("p0", *slate[1:]) if int(c[1:]) < 200 else slate for c, slate in SLATES.items()}},
        ),
        ("price", {"prices": (4.0, 5.0) * 500}, {"prices": (3.0, 4.0) * 500}),  # 3 to 4.50, or to 3.50
        ("change", {"changes": (0.9,) * N}, {"changes": (0.6,) * N}),
        ("quality", {"hits": (0.0,) * N}, {"hits": (0.0, 0.0, 0.0, 0.78) * (N // 4)}),
    ],
)
def test_what_is_a_breach_and_what_is_not(name: str, bad: dict[str, object], bearable: dict[str, object]) -> None:
    """One change that is beyond the limit, and one of the same kind that is within it."""
    assert verdict(name, **bad) == "breach"
    assert verdict(name, **bearable) == "ok"


def test_a_difference_within_its_noise_is_no_breach() -> None:
    """2 % of 200 answers are 4: three standard errors are 3 %, so that even this twice the margin is not sure."""
    few = replace(GOOD, answers=200)
    assert compare(few, replace(few, errors=4), LIMITS, ["errors"])[0].verdict == "ok"
    many = replace(GOOD, answers=20_000)
    assert compare(many, replace(many, errors=400), LIMITS, ["errors"])[0].verdict == "breach"


def test_an_improvement_is_no_breach() -> None:
    """Fewer errors, quicker, broader, better: nobody complains."""
    worse = replace(GOOD, errors=100, fallbacks=100, latency_ms=(90.0,) * N, hits=(0.0,) * N)
    names = ["errors", "fallback", "latency", "quality"]
    assert {found.verdict for found in compare(worse, GOOD, LIMITS, names)} == {"ok"}


def test_an_unknown_guardrail_is_named() -> None:
    """A misspelt guardrail would otherwise guard nothing."""
    with pytest.raises(ConfigurationError, match="latencies"):
        compare(GOOD, GOOD, LIMITS, ["latencies"])
