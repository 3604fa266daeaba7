"""The one door of configuration: defaults here, then a TOML file, then environment variables.

Nothing else in the package reads the environment. `PIPELINE_CONFIG` names the TOML file, `PIPELINE_PROFILE` the
profile; any other setting is `PIPELINE_<SECTION>__<KEY>` (for example `PIPELINE_TRAINING__LABEL_WEEKS=8`).
An unknown key or a bad value is a `ConfigurationError` that names variable, value and what is allowed.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any, Literal

import pydantic

from pipeline_assets.recommender.errors import ConfigurationError
from pipeline_assets.settings_access import AccessSettings
from pipeline_assets.settings_alerts import AlertSettings
from pipeline_assets.settings_automation import AutomationSettings
from pipeline_assets.settings_base import Section
from pipeline_assets.settings_events import EventSettings
from pipeline_assets.settings_monitoring import MonitoringSettings
from pipeline_assets.settings_retention import RetentionSettings
from pipeline_assets.settings_rollout import RolloutSettings
from pipeline_assets.settings_rules import RulesSettings
from pipeline_assets.settings_serving import ServingSettings, StoreSettings
from pipeline_assets.settings_signing import SigningSettings
from pipeline_assets.settings_stream import StreamSettings
from pipeline_assets.settings_training import TrainingSettings

PROJECT_ROOT = Path(__file__).resolve().parent.parent
PREFIX = "PIPELINE_"
NOT_SETTINGS = {
    "PIPELINE_CONFIG",
    "PIPELINE_DAGSTER_STORAGE",
    "PIPELINE_WAREHOUSE_PATH",
}  # read by dagster.yaml, dbt


class SourceSettings(Section):
    """Where the feeds come from."""

    kind: Literal["sample", "files", "sql", "stream"] = "sample"
    path: str | None = None  # files: folder or object-store URL (sources/files.py has the layouts)
    mapping: Path | None = None  # TOML that maps the shop's columns to the contract's (sources/mapping.py)
    url: pydantic.SecretStr = pydantic.SecretStr("")  # sql: SQLAlchemy URL, with user and password
    url_file: Path | None = None  # sql: a file that holds the URL, as secret stores mount it
    connect_args: dict[str, Any] = pydantic.Field(
        default_factory=dict
    )  # sql: what the driver wants besides; no secrets
    customer_share: float = pydantic.Field(
        1.0, ge=0.0001, le=1
    )  # for replays and trials: of the customers, those that marts and models are made of; what arrives is validated whole
    faults: dict[date, tuple[str, ...]] = pydantic.Field(
        default_factory=dict
    )  # for replays and game days: deliveries that go wrong on purpose (sources/faulty.py has the names)

    def database_url(self) -> str:
        """The secret itself, from `url` or from `url_file`.

        Raises:
            ConfigurationError: the file cannot be read.
        """
        if self.url_file is None:
            return self.url.get_secret_value()
        try:
            return self.url_file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(
                "setting source.url_file",
                found=f"{self.url_file} ({type(error).__name__})",
                wanted="a readable file with one SQLAlchemy URL",
                fix="correct PIPELINE_SOURCE__URL_FILE, or let this user read the file",
            ) from None


class CalendarSettings(Section):
    """Business days. Keys of the daily partitions are dates in `time_zone`."""

    first_day: date = date(2017, 1, 1)
    last_day: date | None = date(2017, 12, 31)  # None: open end, for production
    time_zone: str = "America/New_York"
    week_start: int = pydantic.Field(1, ge=1, le=7)  # ISO weekday on which target weeks start (1 = Monday)
    clock: Literal["replay", "wall"] = "replay"  # replay: `until` says which day it is; wall: yesterday is complete
    until: date | None = None  # replay clock: no day after this one has arrived yet
    closed_days: tuple[date, ...] = (date(2017, 12, 25),)  # the shop is shut: no purchases is what is expected
    late_days: int = pydantic.Field(
        28, ge=0
    )  # a delivery that changes within this many days re-opens its day by itself
    holdout_start: date | None = date(2017, 11, 13)  # windows from here on are read through one counted door


class ValidationSettings(Section):
    """When a day is blocked. Rows that break a rule are quarantined either way."""

    max_bad_share: float = pydantic.Field(
        0.20, ge=0, le=1
    )  # 5 % corrupt rows go on, 60 % block (docs/design/reliability.md)
    max_unparsed_share: float = pydantic.Field(0.50, ge=0, le=1)  # of one column: above it the column was retyped
    additive_columns: Literal["warn", "block"] = (
        "warn"  # columns that the contract does not have: told and left out, or refused
    )
    references: Literal["off", "flag", "quarantine"] = (
        "flag"  # purchases of products that were never in the products feed
    )
    check_moments: bool = True  # event_ts has to lie within its business day, in calendar.time_zone
    day_tolerance_hours: float = pydantic.Field(
        1.0, ge=0, le=24
    )  # outside it: clocks of tills, a basket paid after midnight
    max_actor_rows: int = pydantic.Field(1_000, ge=1)  # of one customer and day; 2017 has 184 at most
    volume_low: float = pydantic.Field(
        0.05, ge=0, le=1
    )  # of the usual rows of the weekday (batches.py: measured 0.70 to 1.63)
    volume_high: float = pydantic.Field(10.0, ge=1)
    shift_factor: float = pydantic.Field(3.0, gt=1)  # typical amount and quantity against the last four weeks
    null_budgets: dict[str, tuple[float, float]] = pydantic.Field(
        default_factory=dict
    )  # feed.column -> (warn, error) shares
    accepted_days: tuple[date, ...] = ()  # a person looked: rules that compare with earlier days only tell


class Settings(Section):
    """Everything that can be configured. Frozen; `digest` goes with every model."""

    profile: Literal["local", "production"] = "local"
    data_dir: Path = PROJECT_ROOT / "data"
    dbt_target: Literal["duckdb", "postgres"] = "duckdb"  # where the marts are built; PIPELINE_PG_* say where that is
    source: SourceSettings = SourceSettings()
    stream: StreamSettings = StreamSettings()
    calendar: CalendarSettings = CalendarSettings()
    validation: ValidationSettings = ValidationSettings()
    training: TrainingSettings = TrainingSettings()
    automation: AutomationSettings = AutomationSettings()
    serving: ServingSettings = ServingSettings()
    access: AccessSettings = AccessSettings()
    events: EventSettings = EventSettings()
    rules: RulesSettings = RulesSettings()
    rollout: RolloutSettings = RolloutSettings()
    stores: StoreSettings = StoreSettings()
    signing: SigningSettings = SigningSettings()
    monitoring: MonitoringSettings = MonitoringSettings()
    alerts: AlertSettings = AlertSettings()
    retention: RetentionSettings = RetentionSettings()

    @pydantic.field_validator("data_dir")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        """A relative folder is in the working directory; addresses of files and of SQLite databases need the whole path."""
        return value.absolute()

    @pydantic.model_validator(mode="after")
    def _servers_in_production(self) -> Settings:
        if self.profile == "production":
            servers = ("mlflow_uri", "release_url", "feast_registry", "online_store")
            missing = [f"stores.{name}" for name in servers if not getattr(self.stores, name)]
            missing += [] if self.signing.public_keys else ["signing.public_keys"]
            if missing:
                raise _incomplete("profile production", missing)
        if self.source.kind == "files" and self.source.path is None:
            raise _incomplete("source.kind = files", ["source.path"])
        if self.source.kind == "sql" and not self.source.url.get_secret_value() and self.source.url_file is None:
            raise _incomplete("source.kind = sql", ["source.url"])
        if self.source.kind == "stream" and not self.stream.bootstrap_servers:
            raise _incomplete("source.kind = stream", ["stream.bootstrap_servers"])
        return self

    @property
    def mlflow_uri(self) -> str:
        return self.stores.mlflow_uri or f"sqlite:///{self.data_dir / 'mlflow.db'}"

    @property
    def release_url(self) -> str:
        return self.stores.release_url or f"sqlite:///{self.data_dir / 'release.db'}"

    @property
    def events_url(self) -> str:
        return self.events.url or f"sqlite:///{self.data_dir / 'events.db'}"

    @property
    def feast_registry(self) -> str:
        return self.stores.feast_registry or f"sqlite:///{self.data_dir / 'feast_registry.db'}"

    @property
    def online_store(self) -> dict[str, Any]:
        return self.stores.online_store or {"type": "sqlite", "path": str(self.data_dir / "online_store.db")}

    @property
    def local_pair(self) -> Path:
        """The folder of the pair that bundles are signed with where no key is named."""
        return self.data_dir / "keys"

    @property
    def public_key_files(self) -> tuple[Path, ...]:
        return self.signing.public_keys or (self.local_pair / "bundle_signing.pub",)

    @property
    def recorded(self) -> dict[str, dict[str, Any]]:
        """The sections that can change a model, as they are kept with it: section -> key -> value."""
        return self.model_dump(mode="json", include={"calendar", "validation", "training"})

    @property
    def digest(self) -> str:
        """SHA-256 of what can change a model: everything but places and servers."""
        kept = self.recorded
        kept["calendar"].pop("until")
        kept["calendar"].pop("late_days")
        kept["training"].pop("threads")
        return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def _incomplete(chosen: str, missing: Sequence[str]) -> ConfigurationError:
    variables = ", ".join(PREFIX + key.replace(".", "__").upper() for key in missing)
    return ConfigurationError(
        f"setting {chosen}",
        found=f"nothing for {', '.join(missing)}",
        wanted=f"{chosen} needs {', '.join(missing)}",
        fix=f"set {variables} or the keys in the configuration file",
    )


def _known_keys(section: Sequence[int | str]) -> str:
    """The keys that a section has, for the message about one that it does not have."""
    model: Any = Settings
    for part in section:
        model = model.model_fields[part].annotation
    return f"one of {', '.join(model.model_fields)}"


def _environment_overrides(environ: Mapping[str, str]) -> dict[str, Any]:
    """`PIPELINE_TRAINING__SEED=1` -> {'training': {'seed': '1'}}; pydantic converts and checks the values."""
    found: dict[str, Any] = {}
    for name, value in environ.items():
        if not name.startswith(PREFIX) or name in NOT_SETTINGS or name.startswith("PIPELINE_PG_"):
            continue
        section, _, key = name.removeprefix(PREFIX).lower().partition("__")
        if section in found and isinstance(found[section], dict) != bool(key):
            raise ConfigurationError(
                f"setting {section}",
                found=f"{PREFIX}{section.upper()} beside variables for keys of a section of that name",
                wanted="a value or a section",
                fix=f"remove {PREFIX}{section.upper()} or the others",
            )
        if key:
            found.setdefault(section, {})[key] = _environment_value(name, value)
        else:
            found[section] = _environment_value(name, value)
    return found


def _environment_value(name: str, value: str) -> Any:
    """Lists and tables are written as JSON, nothing at all as `none`; pydantic converts and checks the rest."""
    if value.lower() == "none":
        return None
    if not value.startswith(("[", "{")):
        return value
    try:
        return json.loads(value)
    except json.JSONDecodeError as error:
        found = f"{len(value)} characters that begin with {value[0]}"  # not the text: it may hold secrets
        raise ConfigurationError(
            name, found=found, wanted=f"valid JSON ({error})", fix="correct the variable"
        ) from None


def _shown(value: object) -> str:
    """A value for a message: without user and password, should it be the URL of something."""
    return re.sub(r"://[^/@\s]*@", "://***@", repr(value))


def load_settings(environ: Mapping[str, str]) -> Settings:
    """Build the settings from `environ` and the TOML file it names.

    Raises:
        ConfigurationError: the file is missing or not TOML, a key is unknown, or a value is not allowed.
    """
    values: dict[str, Any] = {}
    if path := environ.get("PIPELINE_CONFIG"):
        try:
            values = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigurationError(
                "PIPELINE_CONFIG",
                found=f"{path} ({error.strerror})",
                wanted="a readable TOML file",
                fix="correct the path",
            ) from None
        except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise ConfigurationError(
                path, found=error, wanted="valid TOML", fix="mend the line that it names"
            ) from None
    for section, override in _environment_overrides(environ).items():
        if isinstance(override, dict):
            if isinstance(values.get(section, {}), dict):  # a value where a section belongs is refused below
                values[section] = {**values.get(section, {}), **override}
        else:
            values[section] = override
    try:
        return Settings.model_validate(values)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        is_unknown = first["type"] == "extra_forbidden"
        key = ".".join(str(part) for part in first["loc"])
        variable = PREFIX + "__".join(str(part) for part in first["loc"]).upper()
        raise ConfigurationError(
            f"setting {key}",
            found=f"an unknown key with {_shown(first['input'])}" if is_unknown else _shown(first["input"]),
            wanted=_known_keys(first["loc"][:-1]) if is_unknown else first["msg"],
            fix=f"correct {variable} or the key {key} in the configuration file",
        ) from None


def tool_environment(settings: Settings) -> dict[str, str]:
    """What the tools under us read from the environment: places, and telemetry off everywhere."""
    return {
        "DAGSTER_HOME": str(PROJECT_ROOT),
        "PIPELINE_DAGSTER_STORAGE": str(settings.data_dir / "dagster"),
        "PIPELINE_WAREHOUSE_PATH": str(settings.data_dir.absolute() / "dbt/marts.duckdb"),
        "PIPELINE_DBT_TARGET": settings.dbt_target,
        "DO_NOT_TRACK": "1",
        "DAGSTER_DISABLE_TELEMETRY": "1",
        "DAGSTER_EVENT_BATCH_SIZE": "200",  # events of a range run are stored together (resources/event_log.py)
        "DBT_SEND_ANONYMOUS_USAGE_STATS": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "FEAST_USAGE": "False",
        "OMP_WAIT_POLICY": "PASSIVE",  # spinning OpenMP threads cost 1.6 CPU s an iteration on a busy machine, 0.3 without
        "MLFLOW_LOGGING_LEVEL": "ERROR",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "GIT_PYTHON_REFRESH": "quiet",
    }


@functools.cache
def get_settings() -> Settings:
    """The settings of this process, read once from the environment; sets `tool_environment` where a value is not given."""
    settings = load_settings(os.environ)
    for name, value in tool_environment(settings).items():
        os.environ.setdefault(name, value)
    return settings


def with_until(day: date) -> Settings:
    """The settings of this process, and of those it starts, with the replay clock stopped at the end of `day`."""
    os.environ[f"{PREFIX}CALENDAR__UNTIL"] = day.isoformat()
    get_settings.cache_clear()
    return get_settings()


# What leaves the data folder: servers, keys of this shop, and people. Empty means in the folder, and nobody.
_NOWHERE_ELSE: Mapping[str, Mapping[str, Any]] = {
    "stores": {"mlflow_uri": "", "release_url": "", "feast_registry": "", "online_store": {}},
    "events": {"url": ""},
    "signing": {"key_file": None, "public_keys": []},
    "alerts": {"webhook_url": "", "slack_url": "", "smtp_host": ""},
}


def with_data_dir(folder: Path) -> Settings:
    """The settings of this process, and of those it starts, with everything that is written in `folder`: no server is written to, nobody is told."""
    os.environ |= {f"{PREFIX}DATA_DIR": str(folder), f"{PREFIX}PROFILE": "local", f"{PREFIX}DBT_TARGET": "duckdb"}
    for place in ("DAGSTER_HOME", "PIPELINE_DAGSTER_STORAGE", "PIPELINE_WAREHOUSE_PATH"):
        os.environ.pop(place, None)  # of the folder before
    return with_values(_NOWHERE_ELSE)


def with_values(sections: Mapping[str, Mapping[str, Any]]) -> Settings:
    """The settings of this process, and of those it starts, with other values of some keys: section -> key -> value.

    Raises:
        ConfigurationError: a value is not allowed; it names the variable.
    """
    for section, values in sections.items():
        for key, value in values.items():
            text = value if isinstance(value, str) else json.dumps(value)
            os.environ[f"{PREFIX}{section}__{key}".upper()] = "none" if value is None else text
    get_settings.cache_clear()
    return get_settings()
