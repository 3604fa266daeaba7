"""While a new model is on trial the live one gets each day, too: on the generated shop, with its real registry, store and lake."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pyarrow.parquet
import pytest
import sqlalchemy as sa

from pipeline_assets.resources.release import refresh_stable
from pipeline_assets.resources.rollout_run import policy_of
from pipeline_assets.serving.release_state import open_state, releases
from pipeline_assets.serving.rollout_state import Offered, offer, view
from pipeline_assets_tests.e2e.first_run import FirstRun
from pipeline_assets_tests.shop import NEWEST


def test_the_live_model_does_not_age_while_another_is_on_trial(
    first_run: FirstRun, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Version 1 is live with the day before, version 2 is on trial: after the refresh version 1 has the newest day and slates for all 80
    customers, the rollout is as it was; a second refresh, or one without a trial, does nothing."""
    shop = first_run.shop.copied(tmp_path_factory.mktemp("refresh") / "shop")
    with shop.opened() as pipeline:
        settings, now = pipeline.settings, datetime.now(UTC)
        engine = open_state(settings.release_url)

        def refreshed() -> bool:
            tracking = pipeline.resources["tracking"]
            row = refresh_stable(pipeline.lake, pipeline.features, tracking, NEWEST, settings, "run", now)
            return row is not None

        with engine.begin() as connection:
            older = {"as_of": str(NEWEST - timedelta(days=1)), "bundle_path": "older"}
            connection.execute(sa.update(releases).where(releases.c.state == "live").values(older))
        assert not refreshed()
        challenger = Offered("challenger", "2", str(NEWEST), None)
        offer(engine, challenger, policy_of(settings), salt="s", fits=True, actor="test", at=now)
        assert refreshed()
        served = view(engine)
        assert served.live is not None
        assert served.candidate is not None
        assert (served.live.model_version, served.live.as_of) == ("1", str(NEWEST))
        assert (served.candidate.model_version, served.candidate.state) == ("2", "trial")
        slates = pyarrow.parquet.read_table(served.live.recommendations_path, columns=["customer_id"])
        assert len(set(slates["customer_id"].to_pylist())) == 80
        assert not refreshed()
        engine.dispose()
