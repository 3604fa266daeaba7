"""The Feast repository: entities, sources, views, services and the offline store that reads the lake."""
