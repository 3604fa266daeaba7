"""Two days more arrive after the first run, one of them drifted, and nobody calls anything by hand but the ticks of a daemon.

Saturday 03-18  the newest day of the first run, an ordinary one: its report is green and asks for nothing
Sunday 03-19    everybody buys expensive drinks: the report is red, no sign of a fault, the decision is to retrain, and sensor
                retrain_on_decision asks for one training, which trains, evaluates, lets the gate decide, and publishes with
                whoever is champion
afterwards      the same day asks for nothing a second time; Saturday is rebuilt and published again
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from pipeline_assets.recommender.features import CUSTOMER_FEATURES
from pipeline_assets.resources.alerts import Alerts
from pipeline_assets.resources.sources import SourceResource
from pipeline_assets.serving.live import BatchSlates
from pipeline_assets.serving.release_state import current_live, open_state
from pipeline_assets.serving.rollout_state import view
from pipeline_assets_tests.e2e.first_run import FirstRun
from pipeline_assets_tests.shop import NEWEST, WORLD, Pipeline
from pipeline_assets_tests.ticks import Inbox, requested, tick, webhook

SUNDAY, MONDAY = date(2017, 3, 19), date(2017, 3, 20)
CUSTOMERS = sorted(WORLD.customers["customer_id"])


@dataclass
class Story:
    """What happened, in order; tests look at it."""

    pipeline: Pipeline
    inbox: Inbox
    ticks: dict[str, Any] = field(default_factory=dict)
    runs: dict[str, Any] = field(default_factory=dict)
    online: dict[str, Mapping[str, list[Any]]] = field(default_factory=dict)
    digests: dict[str, dict[str, Any]] = field(default_factory=dict)
    decisions: dict[str, dict[str, Any]] = field(default_factory=dict)

    def read_online(self, moment: str) -> None:
        """Keep every customer's online values of this moment."""
        features = self.pipeline.features
        self.online[moment] = features.read_online(features.open(), CUSTOMERS)

    def read_digests(self, moment: str) -> None:
        """Keep the digests of the newest materialisations of the features of `NEWEST`."""
        names = ("customer", "product", "customer_product")
        self.digests[moment] = {name: self.pipeline.metadata(f"features/{name}", NEWEST)["digest"] for name in names}


@pytest.fixture(scope="module")
def story(first_run: FirstRun, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    shop = first_run.shop.copied(tmp_path_factory.mktemp("closed_loop") / "shop")
    with shop.opened() as pipeline, webhook() as inbox:
        story = Story(pipeline, inbox)
        resources = {"source": SourceResource(), "lake": pipeline.lake, "alerts": Alerts(webhook_url=inbox.url)}

        def ask(sensor: str, cursor: str | None = None) -> Any:
            return tick(pipeline.definitions, sensor, pipeline.instance, resources, cursor)

        story.ticks["nothing arrived"] = ask("new_day")
        story.ticks["saturday reported"] = ask("retrain_on_decision")
        seen = story.ticks["saturday reported"].cursor

        shop.deliver(SUNDAY, MONDAY, faults={SUNDAY: "drifted"})
        story.ticks["two days arrived"] = ask("new_day")
        story.runs["sunday"] = pipeline.execute("every_day", SUNDAY)
        story.ticks["sunday reported"] = ask("retrain_on_decision", seen)
        story.ticks["second tick"] = ask("retrain_on_decision", story.ticks["sunday reported"].cursor)
        (story.decisions["sunday"],) = pipeline.lake.read("monitoring/retraining_decision", SUNDAY, SUNDAY).to_pylist()
        story.runs["retraining"] = pipeline.execute("retraining", SUNDAY)
        story.runs["decided again"] = pipeline.materialize(SUNDAY, "monitoring/retraining_decision")
        story.ticks["after the training"] = ask("retrain_on_decision", story.ticks["second tick"].cursor)
        story.ticks["one day left"] = ask("new_day")

        story.read_digests("first run")
        pipeline.execute("features", NEWEST)
        story.read_digests("rebuilt")
        story.read_online("sunday")
        story.runs["older day"] = pipeline.materialize(NEWEST, "features/online_store")
        story.read_online("after the older day")
        yield story


def test_no_new_day_asks_for_nothing(story: Story) -> None:
    """All 77 days are landed; the skip says so."""
    assert requested(story.ticks["nothing arrived"]) == []
    assert "no business day has arrived" in story.ticks["nothing arrived"].skip_message


def test_exactly_the_arrived_days_are_asked_for(story: Story) -> None:
    """Oldest first, with the job that also serves, because there is a champion; a day that was run is not asked for again."""
    assert requested(story.ticks["two days arrived"]) == [("every_day", "2017-03-19"), ("every_day", "2017-03-20")]
    assert requested(story.ticks["one day left"]) == [("every_day", "2017-03-20")]


def test_an_ordinary_day_is_green_and_asks_for_nothing(story: Story) -> None:
    """The sensor reads Saturday's report and skips with its verdict; no alert is sent."""
    assert story.pipeline.metadata("monitoring/drift_report", NEWEST)["verdict"] == "ok"
    assert requested(story.ticks["saturday reported"]) == []
    assert "of 2017-03-18: drift report says ok" in story.ticks["saturday reported"].skip_message
    assert all(alert["details"]["day"] == "2017-03-19" for alert in story.inbox.alerts)


def test_the_drifted_day_turns_the_report_red(story: Story) -> None:
    """Prices and mix are named as the reason, and the check on the report warns without stopping the day."""
    found = story.pipeline.metadata("monitoring/drift_report", SUNDAY)
    assert found["verdict"] == "drift"
    assert "unit_price_log1p" in found["reasons"]
    assert "department" in found["reasons"]
    checks = [e for e in story.runs["sunday"].get_asset_check_evaluations() if e.check_name == "inputs_do_not_drift"]
    assert [(check.passed, check.blocking) for check in checks] == [(False, False)]
    assert story.runs["sunday"].success


def test_drift_asks_for_exactly_one_training(story: Story) -> None:
    """Of the day, with the reason on the run and a key against double effects; the decision is a row with its inputs."""
    (request,) = story.ticks["sunday reported"].run_requests
    assert (request.partition_key, request.run_key) == ("2017-03-19", "retrain-2017-03-19")
    reason = "drift on 2017-03-19: no sign of a broken upstream, and no training is too recent"
    assert request.tags["reason"] == reason
    assert '"drift": "drift"' in story.decisions["sunday"]["inputs"]
    assert (story.decisions["sunday"]["decision"], story.decisions["sunday"]["reason"]) == ("retrain", reason)


def test_drift_is_an_alert_on_the_webhook(story: Story) -> None:
    """With its day, severity and runbook."""
    first = story.inbox.alerts[0]
    assert (first["name"], first["severity"], first["details"]["day"]) == ("input_drift", "warning", "2017-03-19")
    assert first["runbook"].startswith("docs/runbook.md")


def test_a_second_tick_asks_for_nothing(story: Story) -> None:
    """The cursor is behind the last report."""
    assert requested(story.ticks["second tick"]) == []
    assert story.ticks["second tick"].skip_message == "no new decision"


def test_cool_down_refuses_a_second_training(story: Story) -> None:
    """Decided again after the training: refused with its reason, which is a record too."""
    assert requested(story.ticks["after the training"]) == []
    assert "a model was trained as of 2017-03-19: cool-down of 1 days" in story.ticks["after the training"].skip_message
    assert story.pipeline.metadata("monitoring/retraining_decision", SUNDAY)["decision"] == "refuse"


def test_the_four_reports_have_a_page_each(story: Story) -> None:
    """Of Sunday: whole pages on disk, linked from the metadata; only the drift report is red."""
    found = {
        name: story.pipeline.metadata(f"monitoring/{name}_report", SUNDAY)
        for name in ("drift", "skew", "quality", "slo")
    }
    pages = {name: Path(metadata["report"]).read_text() for name, metadata in found.items()}
    assert all(page.startswith("<!doctype html>") and page.rstrip().endswith("</html>") for page in pages.values())
    assert {name: metadata["verdict"] for name, metadata in found.items()} == {
        "drift": "drift",
        "skew": "ok",
        "quality": "unknown",
        "slo": "ok",
    }
    assert f"../evidently/{SUNDAY}.html" in pages["drift"]
    assert (story.pipeline.settings.data_dir / "reports/evidently" / f"{SUNDAY}.html").exists()


def test_the_training_used_the_newest_complete_week(story: Story) -> None:
    """The week of cut-off 03-12 ended on Sunday: it is judged on, and each part moved on by one week."""
    weeks = story.pipeline.metadata("training/training_set", SUNDAY)["label_weeks"]
    assert weeks == ["2017-02-05", "2017-02-12", "2017-02-19", "2017-02-26"]
    assert story.pipeline.metadata("training/model", SUNDAY)["trained_through"] == "2017-03-05"


def test_the_gate_decided_and_recorded_why(story: Story) -> None:
    """Whatever it decided: outcome and reasons in the metadata, in the lake and on the model version, and the alias follows."""
    found = story.pipeline.metadata("evaluation/promotion", SUNDAY)
    row = story.pipeline.lake.read("evaluation/promotion", SUNDAY, SUNDAY).to_pylist()[0]
    version = story.pipeline.resources["tracking"].client().get_model_version("ranker", found["model_version"])
    assert found["outcome"] in ("promote", "reject", "inconclusive")
    assert row["outcome"] == version.tags["outcome"] == found["outcome"]
    assert row["reasons"]
    assert version.tags["reasons"] == " | ".join(row["reasons"])
    assert row["champion_version"] == (row["version"] if row["outcome"] == "promote" else "1")


def test_the_day_is_published_with_the_champion(story: Story) -> None:
    """After the training the champion's Sunday is live; or on trial, if the gate made a new model champion, and version 1 has Sunday live."""
    served = view(open_state(story.pipeline.settings.release_url))
    champion = story.pipeline.metadata("evaluation/promotion", SUNDAY)["champion_version"]
    assert served.live is not None
    assert (served.live.as_of, served.live.model_version) == ("2017-03-19", "1")
    assert (served.candidate.model_version if served.candidate else "1") == champion


def test_the_nightly_slates_of_every_customer_are_the_first_fallback(story: Story) -> None:
    """The live release's file has a slate for each customer with features that day, at most `serving.top` long: what the API falls back to."""
    live = current_live(open_state(story.pipeline.settings.release_url))
    assert live is not None
    assert live.recommendations_path is not None
    slates = BatchSlates(Path(live.recommendations_path))
    customers = story.pipeline.lake.read("features/customer", SUNDAY, SUNDAY, ["customer_id"])[
        "customer_id"
    ].to_pylist()
    assert set(slates) == set(customers)
    assert {len(slates[customer]) <= story.pipeline.settings.serving.top for customer in customers} == {True}


def test_features_of_an_old_day_do_not_depend_on_newer_days(story: Story) -> None:
    """03-18 rebuilt when the drifted 03-19 is in the marts: the same digests as before that day existed."""
    assert story.digests["rebuilt"] == story.digests["first run"]


def test_online_values_are_the_offline_values_of_the_newest_day(story: Story) -> None:
    """All 80 customers, not a sample: every customer feature and every packed byte."""
    online, lake = story.online["sunday"], story.pipeline.lake
    customers = lake.read("features/customer", SUNDAY, SUNDAY).to_pandas().set_index("customer_id").loc[CUSTOMERS]
    packs = lake.read("features/customer_product", SUNDAY, SUNDAY).to_pandas().set_index("customer_id").loc[CUSTOMERS]
    served = pd.DataFrame({name: online[name] for name in CUSTOMER_FEATURES}, index=customers.index, dtype="float32")
    pd.testing.assert_frame_equal(served, customers[list(CUSTOMER_FEATURES)], check_names=False)
    assert online["pair_features"] == packs["pair_features"].tolist()
    assert [list(ids) for ids in online["candidate_ids"]] == [list(ids) for ids in packs["candidate_ids"]]


def test_publishing_an_older_day_changes_no_online_value(story: Story) -> None:
    """03-18 is published after 03-19 (docs/design/reliability.md, E4): everybody's newer row is kept."""
    assert story.online["after the older day"] == story.online["sunday"]
    assert story.runs["older day"].success
    counts = story.pipeline.metadata("features/online_store", NEWEST)
    assert (counts["dagster/row_count"], counts["kept_newer"]) == (0, len(CUSTOMERS))
