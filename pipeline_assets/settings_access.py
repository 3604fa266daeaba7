"""The section `access` of the settings: who may ask the API. settings.py reads it, as every section."""

from __future__ import annotations

import tomllib
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import pydantic

from pipeline_assets.recommender.errors import ConfigurationError
from pipeline_assets.settings_base import Section

Scope = Literal["read", "events:write", "admin"]


class KeySettings(Section):
    """One API key: what is known of it is its SHA-256, never the key. `pipeline-assets key` makes both."""

    name: str = pydantic.Field(min_length=1, max_length=64, pattern=r"^[\w.-]+$")  # in the audit log and in messages
    sha256: str = pydantic.Field(pattern=r"^[0-9a-f]{64}$")
    scopes: tuple[Scope, ...] = pydantic.Field(min_length=1)
    not_before: datetime | None = None
    not_after: datetime | None = None  # rotation: the new key's not_before lies before the old one's not_after
    requests_per_second: float | None = pydantic.Field(None, gt=0)  # of each worker process; None: no limit

    @pydantic.field_validator("not_before", "not_after")
    @classmethod
    def _aware(cls, value: datetime | None) -> datetime | None:
        if value is not None and value.tzinfo is None:
            raise ValueError("a time with a time zone, such as 2027-01-01T00:00:00Z")
        return value


class AccessSettings(Section):
    """Keys of the API. Without any, it answers on the loopback interface only."""

    keys: tuple[KeySettings, ...] = ()
    keys_file: Path | None = None  # TOML with [[keys]] tables; read again when it changes
    max_body_bytes: int = pydantic.Field(1_048_576, ge=1_024)  # 1,000 events of 500 bytes fit twice


def read_keys(path: Path) -> tuple[KeySettings, ...]:
    """The keys of a file with [[keys]] tables, as in the section `access`.

    Raises:
        ConfigurationError: not readable, not TOML, or not keys. The message has no value of the file.
    """
    fix = "mend the file that access.keys_file names; `pipeline-assets key` prints an entry"
    try:
        content: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
        return AccessSettings(keys=content.pop("keys", ()), **content).keys
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigurationError(f"keys file {path}", found=f"a wrong {where}", wanted=first["msg"], fix=fix) from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigurationError(
            f"keys file {path}", found=type(error).__name__, wanted="a readable TOML file with [[keys]]", fix=fix
        ) from None
