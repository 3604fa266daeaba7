"""How often the reports alarm while nothing is wrong: drift on real days of the sample, and all four reports of a finished replay.

    PIPELINE_DATA_DIR=<a finished run> python -m benchmarks.alarms drift        # 2017-09-01 to 2017-11-12, the real report day by day
    PIPELINE_DATA_DIR=<a finished run> python -m benchmarks.alarms yardstick    # what the quality report's yardstick gains by listing what is not sold
    python -m benchmarks.alarms replay DIR [DIR …]                              # lanes of `pipeline-assets replay`: counts their verdicts
    python -m benchmarks.alarms quality DIR                                     # what a lane's lists realised of the level that quality is judged by

Drift is judged in a folder of its own, with links to the run's tables: nothing is written to the run. Days before --first are judged, too, because a
verdict needs those of the weeks before. An alarm of a season is an alarm that is counted: nobody broke anything on these days.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from calendar import day_name
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.report import table
from benchmarks.scale import RESULTS
from pipeline_assets.monitoring.drift import DriftPolicy
from pipeline_assets.monitoring.quality import QualityPolicy, quality_decision, realised_quality
from pipeline_assets.recommender.baselines import baseline_slates
from pipeline_assets.resources.evaluation_run import EVALUATION_TABLE
from pipeline_assets.resources.lake import Lake, local_lake
from pipeline_assets.resources.monitoring_run import DRIFT_TABLE, drift_of
from pipeline_assets.resources.quality_run import YARDSTICK, K, champion_level
from pipeline_assets.resources.training_data import sellable_products
from pipeline_assets.settings import get_settings

FIRST, LAST = date(2017, 9, 1), date(2017, 11, 12)
EVENING = 6  # Sunday: evaluations judge lists as of it
WARM_UP = timedelta(days=28)  # drift looks at its verdicts of the weeks before
DAYS = (
    date(2017, 9, 10),
    date(2017, 10, 1),
    date(2017, 10, 15),
    date(2017, 11, 5),
)  # windows that end before the holdout
YARDSTICK_TEXT = (
    "NDCG@10 of decayed frequency in the week after, on all that was bought. Until 2026-11-24 the report let its yardstick list what is not sold,\n"
    "which a model may not. The gain is above the limit of 3 %: a healthy champion was degraded on all 11 days of July that a replay on a part of\n"
    "the customers could judge. The report now judges what is sold."
)
QUALITY_TEXT = (
    "Replay with faults (results/replay.md), lane {lane}, lists as of {first} to {last}. The level is the champion's gain over the yardstick in the\n"
    "evaluation that promoted it, and evaluations judge weeks that begin on Monday, from lists as of Sunday. On that evening the promotions of the whole\n"
    "week are known; lists of later days know less of the seven days after them, and the yardstick knows of no promotion on any day."
)
READ = ("validated", "warehouse", "ledger")
REPORTS = {"drift_report": "drift", "skew_report": "skew", "quality_report": "degraded", "slo_report": "exhausted"}


def verdicts(lake: Lake, name: str, first: date, last: date) -> list[dict[str, Any]]:
    """Day, verdict and reasons of a report's days."""
    if not lake.exists(f"monitoring/{name}"):
        return []
    rows = lake.read(f"monitoring/{name}", first, last, ["event_date", "verdict", "reasons"]).sort_by("event_date")
    return [{**row, "event_date": str(row["event_date"])} for row in rows.to_pylist()]


def counted(name: str, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Days by verdict, and the alarms with their reasons."""
    alarms = [row for row in rows if row["verdict"] == REPORTS[name]]
    return {"report": name, "days": len(rows), "verdicts": dict(Counter(row["verdict"] for row in rows)), "alarms": alarms}  # fmt: skip


def drift(first: date, last: date) -> dict[str, Any]:
    """The drift report of every day from `first` to `last`, made by the function of the asset."""
    settings = get_settings()
    with tempfile.TemporaryDirectory(prefix="alarms-") as folder:
        own = Path(folder) / "lake"
        own.mkdir()
        for layer in READ:
            (own / layer).symlink_to(settings.data_dir / "lake" / layer)
        lake, told = local_lake(Path(folder)), settings.model_copy(update={"data_dir": Path(folder)})
        day = first - WARM_UP
        while day <= last:
            drift_of(lake, day, told, DriftPolicy(), "benchmark", datetime.now(UTC))
            day += timedelta(days=1)
        rows = verdicts(lake, DRIFT_TABLE.split("/")[1], first, last)
    return {"first": str(first), "last": str(last), "measured_at": f"{datetime.now(UTC):%Y-%m-%d}", **counted("drift_report", rows)}  # fmt: skip


def yardstick(days: Sequence[date], last: date) -> list[dict[str, Any]]:
    """NDCG@10 of the quality report's yardstick on what was bought in the week after each day: lists of all products, and of those that are sold."""
    settings = get_settings()
    lake, first = local_lake(settings.data_dir), settings.calendar.first_day
    columns = ["customer_id", "product_id", "order_id", "event_date", "amount"]
    bought = lake.read("warehouse/fct_purchases", first, last, columns).to_pandas()
    sold = bought[bought["product_id"].isin(sellable_products(lake, last).to_pylist())]
    labels = set(lake.passed_days(["purchases"], first, last))

    def ndcg(known: pd.DataFrame, day: date, targets: pd.DataFrame) -> float:
        known = known[known["event_date"] <= day]
        slates = baseline_slates([YARDSTICK], known, sorted(known["customer_id"].unique()), day, K)[YARDSTICK]
        judged = realised_quality({day: slates}, targets, 7, last, K, label_days=labels)
        return round(float(judged["ndcg"].iloc[0]), 4)

    return [{"day": str(d), "all": ndcg(bought, d, bought), "sold": ndcg(sold, d, bought), "sold_on_sold": ndcg(sold, d, sold)} for d in days]  # fmt: skip


def replayed(folders: Sequence[Path]) -> list[dict[str, Any]]:
    """The four reports of each lane."""
    found = []
    for folder in folders:
        for name in REPORTS:
            rows = verdicts(local_lake(folder), name, date.min, date.max)
            span = {"first": rows[0]["event_date"], "last": rows[-1]["event_date"]} if rows else {}
            found.append({"lane": folder.name, **span, **counted(name, rows)})
    return found


def realised(folder: Path, last: date) -> dict[str, Any]:
    """Of a lane's quality reports up to `last`: the days with a verdict, those that were degraded when it was run, those that are by the rule of today and
    by lists of all weekdays alike, by weekday what the lists realised over their level, less 1, and how each champion's gain moved."""
    lake = local_lake(folder)
    rows = lake.read("monitoring/quality_report", date.min, last, ["event_date", "verdict", "history"])
    alarms, today, every, judged = [], [], [], []
    known = [row for row in rows.sort_by("event_date").to_pylist() if row["verdict"] != "unknown"]
    for row in known:
        history = pd.DataFrame(json.loads(row["history"]))
        for name in ("as_of", "labels_as_of"):
            history[name] = [date.fromisoformat(str(text)[:10]) for text in history[name]]
        complete = history[(history["maturity"] == "complete") & (history["baseline"] > 0)]
        level = dict(zip(complete["as_of"], complete["baseline"].astype(float), strict=True))
        alarms += [str(row["event_date"])] * (row["verdict"] == "degraded")
        _, scale, error = champion_level(
            lake, row["event_date"] - timedelta(days=1)
        )  # a day is trained on after it was judged
        for found, alike in ((today, EVENING), (every, None)):
            decision = quality_decision(history, level, QualityPolicy(), error / scale, alike)
            found += [str(row["event_date"])] * (decision.verdict == "degraded")
        judged.append(complete)
    newest = pd.concat(judged).drop_duplicates("as_of", keep="last")
    gain, weekday = newest["ndcg"] / newest["baseline"] - 1, pd.to_datetime(newest["as_of"]).dt.dayofweek
    by_day = [
        {"weekday": day_name[n], "lists": int((weekday == n).sum()), "gain": float(gain[weekday == n].mean())}
        for n in sorted(weekday.unique(), key=lambda n: (n + 1) % 7)
    ]
    span = {"first": str(newest["as_of"].min()), "last": str(newest["as_of"].max())}
    rules = {"degraded": alarms, "today": today, "every_weekday": every}
    return {"lane": folder.name, **span, "days": len(known), **rules, "by_day": by_day, "gains": gains(lake, last)}


def gains(lake: Lake, last: date) -> list[dict[str, Any]]:
    """Of each champion that was judged again at least four times: its gain over the yardstick in each of these evaluations."""
    found: dict[date, list[float]] = {}
    for row in lake.read(EVALUATION_TABLE, date.min, last).sort_by("event_date").to_pylist():
        summaries = json.loads(row["summaries"])
        if "champion" in summaries:
            promoted, _, _ = champion_level(lake, row["event_date"] - timedelta(days=1))
            found.setdefault(promoted, []).append(summaries["champion"]["ndcg"] / summaries[YARDSTICK]["ndcg"])
    return [
        {"promoted": str(day), "evaluations": len(each), "mean": statistics.mean(each), "sd": statistics.stdev(each)}
        for day, each in found.items()
        if len(each) >= 4
    ]


def page(found: dict[str, Any]) -> str:
    """Markdown."""
    lines = ["# Alarms while nothing is wrong", ""]
    lines += ["Written by `python -m benchmarks.alarms`. No fault was injected on the days of this table.", ""]
    rows, reasons = [], []
    for entry in [found[name] for name in ("drift",) if name in found] + found.get("replay", []):
        lane = f"replay, {entry['lane']}" if "lane" in entry else "sample"
        known = entry["days"] - entry["verdicts"].get("unknown", 0)
        share = f"{len(entry['alarms']) / known:.1%}" if known else "–"
        counts = ", ".join(f"{count} {name}" for name, count in sorted(entry["verdicts"].items()))
        rows.append([lane, entry["report"], f"{entry.get('first')} to {entry.get('last')}", counts, len(entry["alarms"]), share])  # fmt: skip
        reasons += [f"- {lane}, {entry['report']}, {row['event_date']}: {'; '.join(row['reasons'])[:300]}" for row in entry["alarms"]]  # fmt: skip
    lines += table(["days of", "report", "from, to", "verdicts", "alarms", "of the days with a verdict"], rows)
    lines += ["No alarm in n days bounds the rate of false ones by 3 / n (95 %).", ""]
    if "yardstick" in found:
        lines += ["## The yardstick of the quality report", "", YARDSTICK_TEXT, ""]
        header = ["day", "lists of all products", "lists of what is sold", "change", "the same, judged on what is sold"]
        lines += table(
            header,
            [
                [
                    e["day"],
                    f"{e['all']:.4f}",
                    f"{e['sold']:.4f}",
                    f"{e['sold'] / e['all'] - 1:+.1%}",
                    f"{e['sold_on_sold']:.4f}",
                ]
                for e in found["yardstick"]
            ],
        )
    if "quality" in found:
        of = found["quality"]
        lines += ["## What lists realise of their level", "", QUALITY_TEXT.format(**of), ""]
        for name, told in (
            ("degraded", "degraded when the replay was run"),
            ("today", "by the rule of today"),
            ("every_weekday", "by lists of every weekday alike"),
        ):
            lines.append(
                f"- {told}: {len(of[name])} of {of['days']} days with a verdict: {', '.join(of[name]) or 'none'}"
            )
        rows = [[e["weekday"], e["lists"], f"{e['gain']:+.1%}"] for e in of["by_day"]]
        lines += ["", *table(["lists as of", "days", "realised NDCG@10 over the level"], rows)]
        rows = [[e["promoted"], e["evaluations"], f"{e['mean'] - 1:+.1%}", f"{e['sd']:.1%}"] for e in of["gains"]]
        header = ["champion promoted on", "evaluations after", "gain over the yardstick", "standard deviation"]
        lines += ["The gain of one champion in evaluations of four weeks:", "", *table(header, rows)]
    lines += ["## Each alarm", "", *(reasons or ["None."]), ""]
    return "\n".join(lines)


def main() -> int:
    """Measure one part, and write the page of all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=["drift", "yardstick", "replay", "quality", "page"])
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--first", type=date.fromisoformat, default=FIRST)
    parser.add_argument(
        "--last", type=date.fromisoformat, default=LAST, help="nothing after 2017-11-12 chooses anything"
    )
    options = parser.parse_args()
    path = RESULTS / "alarms.json"
    found = json.loads(path.read_text()) if path.exists() else {}
    if options.part == "drift":
        found["drift"] = drift(options.first, options.last)
    elif options.part == "yardstick":
        found["yardstick"] = yardstick(DAYS, options.last)
    elif options.part == "replay":
        found["replay"] = replayed(options.folders)
    elif options.part == "quality":
        found["quality"] = realised(options.folders[0], options.last)
    path.write_text(json.dumps(found, indent=1, default=str) + "\n")
    (RESULTS / "alarms.md").write_text(page(found))
    print(page(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
