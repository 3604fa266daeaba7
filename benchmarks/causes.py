"""Signs of a broken upstream on clean days and on days with a fault: where the limits of `CausePolicy` come from.

PIPELINE_DATA_DIR=<a finished run> python -m benchmarks.causes
"""

from __future__ import annotations

import argparse
from datetime import date, timedelta

import numpy as np
import pandas as pd

from pipeline_assets.monitoring.causes import CausePolicy, Signs, signs_of_a_fault
from pipeline_assets.resources.lake import local_lake
from pipeline_assets.resources.monitoring_run import newest_products, purchase_lines
from pipeline_assets.settings import get_settings

FIRST, STEP = date(2017, 5, 1), 2
WEEKS = 8


def faulty(lines: pd.DataFrame, fault: str, seed: int) -> pd.DataFrame:
    """The lines of a day as a broken source would deliver them."""
    rows = lines.copy()
    half = rows["product_id"].map(lambda product: hash_of(str(product), seed) < 0.5)
    if fault == "prices x1.3 on half":
        rows.loc[half, ["amount", "discount"]] *= 1.3
    elif fault == "UTC as local time":
        rows["event_ts"] = rows["event_ts"] + pd.Timedelta(hours=-4)
    elif fault == "no discounts":
        rows["amount"], rows["discount"] = rows["amount"] + rows["discount"], 0.0
    elif fault == "largest department gone":
        rows = rows[rows["department"] != rows["department"].mode()[0]]
    elif fault == "half of the catalogue gone":
        rows.loc[half, "department"] = "unknown"
    return rows


def hash_of(text: str, seed: int) -> float:
    """A number in 0..1 that belongs to the text."""
    return float(np.random.default_rng([seed, *text.encode()]).random())


FAULTS = (
    "none", "prices x1.3 on half", "UTC as local time", "no discounts", "largest department gone",
    "half of the catalogue gone",
)  # fmt: skip


def main() -> None:
    """Print a row per fault."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--until", type=date.fromisoformat, default=date(2017, 11, 12))
    until = parser.parse_args().until
    settings = get_settings()
    lake, zone = local_lake(settings.data_dir), settings.calendar.time_zone
    products = newest_products(lake, until)
    days = [FIRST + timedelta(days=n) for n in range(0, (until - FIRST).days + 1, STEP)]
    wanted = {day - timedelta(7 * n) for day in days for n in range(WEEKS + 1)}
    held = {d: purchase_lines(lake, [d], products) for d in sorted(wanted) if d >= settings.calendar.first_day}
    results: dict[str, list[Signs]] = {fault: [] for fault in FAULTS}
    for day in days:
        reference = pd.concat([held[d] for n in range(1, WEEKS + 1) if (d := day - timedelta(days=7 * n)) in held])
        for fault in FAULTS:
            results[fault].append(
                signs_of_a_fault(
                    reference, faulty(held[day], fault, settings.training.seed), CausePolicy(), time_zone=zone
                )
            )
    print(f"{len(days)} days, {days[0]} to {days[-1]}")
    print(
        "| fault | days with a sign | repriced: median, range | hours: range | discount part: range | unknown: largest |"
    )
    print("|---|---|---|---|---|---|")
    for fault, signs in results.items():
        repriced, hours, discounts = (
            [getattr(s, name) for s in signs] for name in ("repriced_share", "hour_shift", "discount_part")
        )
        print(
            f"| {fault} | {sum(bool(s.found) for s in signs)} | {np.median(repriced):.2f}, {min(repriced):.2f} to {max(repriced):.2f} | "
            f"{min(hours):+.1f} to {max(hours):+.1f} | {min(discounts):.2f} to {max(discounts):.2f} | {max(s.unknown_share for s in signs):.3f} |"
        )
        if fault == "none":
            print([(str(day), s.found) for day, s in zip(days, signs, strict=True) if s.found])


if __name__ == "__main__":
    main()
