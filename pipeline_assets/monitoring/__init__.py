"""Pure monitoring code: drift policy, realised quality and their reports. No Dagster, no clock, no environment."""
