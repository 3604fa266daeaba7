"""The section `signing` of the settings: the keys of bundles. settings.py reads it, as every section."""

from __future__ import annotations

from pathlib import Path

import pydantic

from pipeline_assets.settings_base import Section


class SigningSettings(Section):
    """ed25519 keys as PEM files. The private one belongs to the pipeline alone; serving needs public ones."""

    key_file: Path | None = None  # None: the pair in `data_dir`, made with the first bundle; production wants a file
    public_keys: tuple[Path, ...] = pydantic.Field(default=())  # any of them is accepted; empty: that of the pair
