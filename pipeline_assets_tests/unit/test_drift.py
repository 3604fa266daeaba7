"""The drift policy: what makes a column drift, what makes a day alarm, and above all what must not."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest

from pipeline_assets.monitoring.drift import (
    PROFILE_CATEGORICAL,
    PROFILE_NUMERICAL,
    ColumnDrift,
    DriftPolicy,
    DriftResult,
    compare,
    decide,
    input_profile,
)
from pipeline_assets.recommender.errors import ConfigurationError, SchemaError

POLICY = DriftPolicy()
PRICES = np.array([0.99, 1.0, 1.29, 1.5, 1.99, 2.49, 2.99, 3.49, 3.99, 4.99, 5.99, 7.49])


def shop_lines(orders: int, seed: int, *, price_factor: float = 1.0, drug_share: float = 0.1) -> pd.DataFrame:
    """Purchase lines of 10 a order: an order has one hour and leans to one department."""
    rng = np.random.default_rng(seed)
    order = np.repeat(np.arange(orders), 10)
    n = len(order)
    food = (1 - drug_share) * np.array([0.6, 0.25, 0.15])
    own = rng.choice(["GROCERY", "PRODUCE", "MEAT", "DRUG GM"], orders, p=[*food, drug_share])[order]
    other = rng.choice(["GROCERY", "PRODUCE", "MEAT", "DRUG GM"], n, p=[*food, drug_share])
    department = np.where(rng.random(n) < 0.3, own, other)
    quantity = rng.choice([1, 2, 3], n, p=[0.8, 0.15, 0.05])
    amount = quantity * price_factor * rng.choice(PRICES, n)
    hours = pd.to_timedelta(rng.integers(12, 24, orders)[order], unit="h")
    return pd.DataFrame(
        {
            "order_id": order.astype(str),
            "quantity": quantity,
            "amount": amount,
            "discount": np.where(rng.random(n) < 0.3, 0.2 * amount, 0.0),
            "event_ts": pd.Timestamp("2024-05-06", tz="UTC") + hours,
            "department": department,
            "category": np.char.add(department.astype(str), rng.choice([" A", " B"], n)),
            "brand": rng.choice(["National", "Private"], n, p=[0.7, 0.3]),
        }
    )


def shop_day(orders: int, seed: int, *, price_factor: float = 1.0, drug_share: float = 0.1) -> pd.DataFrame:
    """The profile of `shop_lines`."""
    lines = shop_lines(orders, seed, price_factor=price_factor, drug_share=drug_share)
    return input_profile(lines, time_zone="America/New_York")


def compare_days(reference: pd.DataFrame, current: pd.DataFrame, policy: DriftPolicy = POLICY) -> DriftResult:
    """`compare` over the profile's columns."""
    return compare(reference, current, PROFILE_NUMERICAL, PROFILE_CATEGORICAL, policy)


def result_of(*drifted: str, extreme: tuple[str, ...] = ()) -> DriftResult:
    """A result over the eight profile columns in which the named ones drifted."""
    columns = tuple(
        ColumnDrift(
            column=name,
            kind="numerical",
            effect_size=0.6 if name in extreme else 0.1 if name in drifted else 0.01,
            p_value=0.0,
            adjusted_p_value=0.0,
            design_effect=1.0,
            is_drifted=name in drifted or name in extreme,
            is_extreme=name in extreme,
        )
        for name in (*PROFILE_NUMERICAL, *PROFILE_CATEGORICAL)
    )
    return DriftResult(8_000, 2_000, columns)


CALM = result_of()
CHANGED = result_of("amount_log1p", "unit_price_log1p")


def test_forty_splits_of_one_distribution_never_drift() -> None:
    """Negative control: 40 seeded random splits by order of the same shop; every verdict is 'ok', day after day."""
    whole = shop_day(1_000, seed=0)
    verdicts: list[str] = []
    for seed in range(40):
        chosen = np.random.default_rng(seed).permutation(1_000)[:200].astype(str)
        is_current = whole["order_id"].isin(chosen)
        verdicts.append(decide(compare_days(whole[~is_current], whole[is_current]), verdicts, POLICY).verdict)
    assert verdicts == ["ok"] * 40


def test_new_prices_and_mix_drift_on_the_second_day_at_the_latest() -> None:
    """Prices x1.5 and drugs from 10 % to 30 % of the lines: 'watch' or 'drift' at once, 'drift' the next day."""
    reference = shop_day(1_000, seed=0)
    verdicts: list[str] = ["ok"]
    for seed in (1, 2):
        today = shop_day(300, seed=seed, price_factor=1.5, drug_share=0.3)
        verdicts.append(decide(compare_days(reference, today), verdicts, POLICY).verdict)
    assert verdicts[1] in ("watch", "drift")
    assert verdicts[2] == "drift"


def test_only_the_columns_that_changed_are_drifted() -> None:
    """A price change moves amount and unit price, and nothing else."""
    result = compare_days(shop_day(1_000, seed=0), shop_day(300, seed=1, price_factor=1.5))
    assert result.drifted_columns == ("amount_log1p", "unit_price_log1p")


def test_effect_size_is_psi_over_category_shares() -> None:
    """Shares .75/.25 against .5/.5: (.5 - .75) ln(.5/.75) + (.5 - .25) ln(.5/.25) = .25 ln 3 = .2747."""
    reference = pd.DataFrame({"brand": ["National"] * 750 + ["Private"] * 250})
    current = pd.DataFrame({"brand": ["National"] * 500 + ["Private"] * 500})
    (column,) = compare(reference, current, [], ["brand"], POLICY).columns
    assert column.effect_size == pytest.approx(0.25 * np.log(3))
    assert column.is_drifted
    assert not column.is_extreme


def test_a_big_change_that_is_not_significant_is_no_drift() -> None:
    """1,000 lines of two orders are two opinions: PSI is large, but with clustering nothing is proven."""
    reference = pd.DataFrame(
        {"hour": np.repeat([9.0, 12.0, 15.0, 18.0], 250), "order_id": np.repeat(list("abcd"), 250)}
    )
    current = pd.DataFrame({"hour": np.repeat([9.0, 18.0], 500), "order_id": np.repeat(list("ef"), 500)})
    (clustered,) = compare(reference, current, ["hour"], [], POLICY).columns
    (independent,) = compare(reference, current, ["hour"], [], dataclasses.replace(POLICY, cluster_column=None)).columns
    assert clustered.effect_size == independent.effect_size > POLICY.psi_threshold
    assert clustered.design_effect > 100
    assert not clustered.is_drifted
    assert independent.is_drifted


def test_a_significant_change_that_is_small_is_no_drift() -> None:
    """200,000 rows prove that 52 % is not 50 %; PSI is .02 ln(.52/.5) - .02 ln(.48/.5) = .0016: nobody is told."""
    reference = pd.DataFrame({"brand": ["National", "Private"] * 100_000})
    current = pd.DataFrame({"brand": ["National"] * 104_000 + ["Private"] * 96_000})
    (column,) = compare(reference, current, [], ["brand"], POLICY).columns
    assert column.effect_size == pytest.approx(0.02 * np.log(0.52 / 0.5) - 0.02 * np.log(0.48 / 0.5))
    assert column.adjusted_p_value < POLICY.false_discovery_rate
    assert not column.is_drifted


def test_values_that_go_missing_are_drift() -> None:
    """A column that was never empty and is empty today has no values to rank, but it did change."""
    reference = pd.DataFrame({"discount_share": np.linspace(0, 1, 2_000)})
    current = pd.DataFrame({"discount_share": np.full(2_000, np.nan)})
    (column,) = compare(reference, current, ["discount_share"], [], POLICY).columns
    assert column.is_extreme


def test_a_constant_column_that_stays_constant_is_no_drift() -> None:
    """One value on both sides: PSI 0 and p 1, not a division by zero."""
    frame = pd.DataFrame({"quantity": np.ones(1_000), "brand": ["National"] * 1_000})
    columns = compare(frame, frame, ["quantity"], ["brand"], POLICY).columns
    assert [(column.effect_size, column.p_value) for column in columns] == [(0.0, 1.0), (0.0, 1.0)]


def test_a_column_of_nothing_on_both_sides_is_no_drift() -> None:
    """All missing before, all missing now: nothing changed."""
    frame = pd.DataFrame({"discount_share": np.full(1_000, np.nan)})
    (column,) = compare(frame, frame, ["discount_share"], [], POLICY).columns
    assert (column.effect_size, column.p_value) == (0.0, 1.0)


def test_an_infinite_value_is_an_error() -> None:
    """Infinity is a broken computation upstream, not a large value."""
    frame = pd.DataFrame({"amount": [np.inf] + [1.0] * 999})
    with pytest.raises(SchemaError, match="column amount"):
        compare(frame, frame, ["amount"], [], POLICY)


def test_a_missing_column_is_named() -> None:
    """A renamed column is an error with its name, not a column less."""
    frame = pd.DataFrame({"amount": [1.0]})
    with pytest.raises(SchemaError, match=r"current frame.*brand"):
        compare(frame.assign(brand="x"), frame, ["amount"], ["brand"], POLICY)


@pytest.mark.parametrize(("reference", "current"), [(999, 1_000), (1_000, 999), (1_000, 0)])
def test_too_few_rows_are_unknown(reference: int, current: int) -> None:
    """One row below 1,000 on either side: no column is judged and the day is neither good nor bad."""
    whole = pd.DataFrame({"amount": np.arange(1_000.0)})
    result = compare(whole.head(reference), whole.head(current), ["amount"], [], POLICY)
    decision = decide(result, ["watch"], POLICY)
    assert result.columns == ()
    assert decision.verdict == "unknown"
    assert f"reference has {reference} rows, current {current}, 1000 needed" in decision.reasons[0]


@pytest.mark.parametrize(
    ("previous", "verdict"),
    [
        ([], "watch"),
        (["ok"], "watch"),
        (["watch"], "drift"),
        (["drift"], "drift"),
        (["watch", "ok"], "watch"),
        (["watch", "unknown"], "drift"),
        (["ok", "unknown"], "watch"),
    ],
)
def test_two_changed_days_in_a_row_are_drift(previous: list[str], verdict: str) -> None:
    """Persistence 2: the first changed day is watched, the second drifts; an unknown day between is stepped over."""
    assert decide(CHANGED, previous, POLICY).verdict == verdict


def test_longer_persistence_waits_longer() -> None:
    """Persistence 3: day 2 is still 'watch', day 3 is 'drift'."""
    policy = dataclasses.replace(POLICY, persistence_days=3)
    assert [decide(CHANGED, ["watch"] * days, policy).verdict for days in range(3)] == ["watch", "watch", "drift"]


def test_a_calm_day_ends_the_drift() -> None:
    """Yesterday's drift does not outlive today's calm."""
    assert decide(CALM, ["drift", "drift"], POLICY).verdict == "ok"


def test_an_extreme_column_is_drift_at_once() -> None:
    """One column far off does not wait for tomorrow, and the reason names it."""
    decision = decide(result_of(extreme=("hour_of_day",)), [], POLICY)
    assert decision.verdict == "drift"
    assert decision.reasons[-1] == "extreme change (PSI >= 0.5) of hour_of_day"


@pytest.mark.parametrize(
    ("drifted", "verdict"),
    [
        (("unit_price_log1p",), "ok"),
        (("unit_price_log1p", "department"), "watch"),
        (("hour_of_day", "category"), "ok"),
        (("hour_of_day", "category", "discount_share"), "watch"),
    ],
)
def test_enough_columns_are_two_important_ones_or_three_of_eight(drifted: tuple[str, ...], verdict: str) -> None:
    """1 of 8 = .125 and 2 of 8 = .25 are below .3, 3 of 8 = .375 is not; two important ones are enough."""
    assert decide(result_of(*drifted), [], POLICY).verdict == verdict


def test_reasons_name_the_columns_and_their_size() -> None:
    """A person reads what changed and by how much without opening the report."""
    expected = "2 of 8 columns drifted, 2 of them important: amount_log1p PSI 0.100, unit_price_log1p PSI 0.100"
    assert decide(CHANGED, [], POLICY).reasons[0] == expected


@pytest.mark.parametrize(
    "wrong",
    [
        {"min_rows": 0},
        {"bins": 1},
        {"persistence_days": 0},
        {"false_discovery_rate": 0.0},
        {"min_drifted_share": 1.5},
        {"psi_threshold": 0.6},
    ],
)
def test_a_policy_that_cannot_work_is_refused(wrong: dict[str, float]) -> None:
    """The message names the field."""
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        dataclasses.replace(POLICY, **wrong)


def test_profile_is_arithmetic_on_lines() -> None:
    """2 units for 3.00 after 1.00 off: unit price 1.50, share 1/4; 16:30 UTC in May is 12 o'clock in New York."""
    line = shop_lines(1, seed=0).head(1)
    line = line.assign(quantity=2, amount=3.0, discount=1.0, event_ts=pd.Timestamp("2024-05-06 16:30", tz="UTC"))
    (profile,) = input_profile(line, time_zone="America/New_York").to_dict("records")
    assert profile["quantity_log1p"] == pytest.approx(np.log(3))
    assert profile["amount_log1p"] == pytest.approx(np.log(4))
    assert profile["unit_price_log1p"] == pytest.approx(np.log(2.5))
    assert profile["discount_share"] == 0.25
    assert profile["hour_of_day"] == 12.0
    assert profile["order_id"] == "0"


def test_profile_hours_do_not_move_with_the_clocks() -> None:
    """Noon in New York is 17:00 UTC in January and 16:00 UTC in July; both are hour 12."""
    lines = shop_lines(1, seed=0).head(2)
    lines["event_ts"] = pd.to_datetime(["2024-01-15 17:00", "2024-07-15 16:00"], utc=True)
    assert list(input_profile(lines, time_zone="America/New_York")["hour_of_day"]) == [12.0, 12.0]


def test_one_price_is_one_value_however_it_was_computed() -> None:
    """2.97 / 3, 0.99 / 1 and 1.98 / 2 are all 0.99; in floating point the first is not."""
    lines = shop_lines(1, seed=0).head(3).assign(quantity=[3, 1, 2], amount=[2.97, 0.99, 1.98], discount=0.0)
    assert 2.97 / 3 != 0.99
    assert input_profile(lines, time_zone="UTC")["unit_price_log1p"].nunique() == 1


def test_profile_of_a_free_line_has_no_discount_share() -> None:
    """0 of 0 is missing, not 0."""
    line = shop_lines(1, seed=0).head(1).assign(amount=0.0, discount=0.0)
    assert input_profile(line, time_zone="UTC")["discount_share"].isna().all()


def test_profile_of_no_lines_has_all_columns() -> None:
    """An empty day is compared like any other and comes out as unknown."""
    profile = input_profile(shop_lines(1, seed=0).head(0), time_zone="UTC")
    assert set(profile.columns) == {"order_id", *PROFILE_NUMERICAL, *PROFILE_CATEGORICAL}
    assert compare_days(shop_day(100, seed=0), profile).columns == ()


@pytest.mark.parametrize(("column", "value"), [("quantity", 0), ("amount", -1.0), ("discount", -0.1)])
def test_profile_refuses_unvalidated_lines(column: str, value: float) -> None:
    """A return or a zero quantity has no unit price; the validated layer has none."""
    lines = shop_lines(1, seed=0)
    lines[column] = value
    with pytest.raises(SchemaError, match="10 lines with"):
        input_profile(lines, time_zone="UTC")
