"""A past period run again day by day on a replay clock: real assets, gates, sensors, rollout and API, with faults on purpose."""
