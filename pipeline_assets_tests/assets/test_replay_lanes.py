"""What the lanes of a replay run between them is what a business day runs in production."""

from __future__ import annotations

from pipeline_assets.definitions import defs
from pipeline_assets.replay.lanes import DRIFT
from pipeline_assets.replay.policy_lane import MONITORS, ONLINE, RELEASE


def assets_of(*groups: str) -> set[str]:
    graph = defs.resolve_asset_graph()
    return {key.to_user_string() for key in graph.get_all_asset_keys() if graph.get(key).group_name in groups}


def test_every_report_of_a_day_is_made_by_one_lane() -> None:
    """Drift by the data lane, the others by the policy's: none is left out, none is made twice."""
    assert DRIFT not in MONITORS
    assert sorted([DRIFT, *MONITORS]) == sorted(assets_of("monitoring"))


def test_everything_that_is_served_is_published_by_the_policys_lane() -> None:
    """The online store, and all of the groups that a business day publishes."""
    assert sorted([*ONLINE, *RELEASE]) == sorted({"features/online_store"} | assets_of("deployment", "recommendations"))
