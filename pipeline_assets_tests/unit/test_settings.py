"""The one door of configuration: defaults, TOML file, environment; and what an error says."""

from __future__ import annotations

import os
from datetime import date
from pathlib import Path

import pytest

from pipeline_assets.recommender.errors import ConfigurationError
from pipeline_assets.resources.alerts import LogSink, alerts_of
from pipeline_assets.settings import (
    PROJECT_ROOT,
    Settings,
    get_settings,
    load_settings,
    tool_environment,
    with_data_dir,
)

SERVERS = {
    "PIPELINE_PROFILE": "production",
    "PIPELINE_STORES__MLFLOW_URI": "http://mlflow",
    "PIPELINE_STORES__RELEASE_URL": "postgresql://db/release",
    "PIPELINE_STORES__FEAST_REGISTRY": "postgresql://db/feast",
    "PIPELINE_SIGNING__PUBLIC_KEYS": '["/run/keys/new.pub", "/run/keys/old.pub"]',
}


def toml(folder: Path, text: str) -> dict[str, str]:
    """An environment that names a file with this text."""
    path = folder / "pipeline.toml"
    path.write_text(text)
    return {"PIPELINE_CONFIG": str(path)}


def refused(environ: dict[str, str]) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as error:
        load_settings(environ)
    assert error.value.culprit
    assert error.value.wanted
    assert error.value.fix
    return error.value


def test_no_environment_gives_the_local_defaults() -> None:
    """The sample in data/, seven-day windows, servers embedded."""
    settings = load_settings({})
    assert (settings.profile, settings.source.kind, settings.data_dir) == ("local", "sample", PROJECT_ROOT / "data")
    assert settings.training.horizon_days == 7
    assert settings.mlflow_uri == f"sqlite:///{PROJECT_ROOT / 'data' / 'mlflow.db'}"


def test_environment_overrides_a_default_and_is_converted() -> None:
    """Text becomes the type of the key."""
    settings = load_settings(
        {"PIPELINE_TRAINING__SEED": "11", "PIPELINE_CALENDAR__UNTIL": "2017-02-19", "PIPELINE_DATA_DIR": "/d"}
    )
    assert (settings.training.seed, settings.calendar.until, settings.data_dir) == (11, date(2017, 2, 19), Path("/d"))


def test_file_overrides_a_default_and_the_environment_the_file(tmp_path: Path) -> None:
    """Label weeks: file 9, environment 5; the seed of the same section stays the file's."""
    environ = toml(tmp_path, "[training]\nlabel_weeks = 9\nseed = 3\n")
    assert load_settings(environ).training.label_weeks == 9
    both = load_settings({**environ, "PIPELINE_TRAINING__LABEL_WEEKS": "5"})
    assert (both.training.label_weeks, both.training.seed) == (5, 3)


def test_variables_of_others_are_left_alone() -> None:
    """What dagster.yaml and dbt read starts with the same word; the rest of the environment is not ours."""
    others = {"PIPELINE_DAGSTER_STORAGE": "x", "PIPELINE_WAREHOUSE_PATH": "x", "PIPELINE_PG_HOST": "x", "HOME": "/root"}
    assert load_settings(others) == Settings()


def test_settings_cannot_be_changed() -> None:
    """Frozen, sections too."""
    with pytest.raises(ValueError, match="frozen"):
        load_settings({}).training.seed = 1  # type: ignore[misc]


def test_unknown_key_names_variable_key_known_keys_and_fix() -> None:
    """LABEL_WEEK without its s."""
    error = refused({"PIPELINE_TRAINING__LABEL_WEEK": "5"})
    assert error.culprit == "setting training.label_week"
    assert "5" in str(error.found)
    assert "label_weeks" in str(error.wanted)
    assert "PIPELINE_TRAINING__LABEL_WEEK" in error.fix


def test_unknown_section_in_the_file_names_the_known_ones(tmp_path: Path) -> None:
    """[trainig]"""
    error = refused(toml(tmp_path, "[trainig]\nseed = 1\n"))
    assert error.culprit == "setting trainig"
    assert "training" in str(error.wanted)
    assert "configuration file" in error.fix


@pytest.mark.parametrize(
    ("variable", "value", "wanted"),
    [
        ("PIPELINE_TRAINING__SEED", "seven", "integer"),
        ("PIPELINE_TRAINING__NEGATIVE_SHARE", "0", "greater than 0"),
        ("PIPELINE_CALENDAR__WEEK_START", "8", "less than or equal to 7"),
        ("PIPELINE_CALENDAR__UNTIL", "yesterday", "date"),
        ("PIPELINE_SOURCE__KIND", "ftp", "'sample', 'files', 'sql' or 'stream'"),
        ("PIPELINE_PROFILE", "test", "'local' or 'production'"),
        ("PIPELINE_STORES__ONLINE_STORE", "redis", "dictionary"),
        ("PIPELINE_TRAINING", "fast", "dictionary"),
    ],
)
def test_bad_value_names_variable_value_what_is_allowed_and_fix(variable: str, value: str, wanted: str) -> None:
    """One message is enough to correct it."""
    error = refused({variable: value})
    assert error.culprit == "setting " + variable.removeprefix("PIPELINE_").lower().replace("__", ".")
    assert error.found == repr(value)
    assert wanted in str(error.wanted)
    assert variable in error.fix


def test_value_and_section_in_one_variable_is_refused() -> None:
    """PIPELINE_TRAINING is a value, PIPELINE_TRAINING__SEED a key of a section of that name."""
    for environ in (
        {"PIPELINE_TRAINING": "fast", "PIPELINE_TRAINING__SEED": "1"},
        {"PIPELINE_TRAINING__SEED": "1", "PIPELINE_TRAINING": "fast"},
    ):
        assert refused(environ).culprit == "setting training"


def test_section_that_is_a_value_in_the_file_is_refused(tmp_path: Path) -> None:
    """training = 5 and an override of one of its keys."""
    environ = toml(tmp_path, "training = 5\n")
    assert refused({**environ, "PIPELINE_TRAINING__SEED": "1"}).culprit == "setting training"


def test_missing_file_is_named_with_the_variable(tmp_path: Path) -> None:
    """PIPELINE_CONFIG points nowhere; a folder is no file either."""
    for path in (tmp_path / "absent.toml", tmp_path):
        error = refused({"PIPELINE_CONFIG": str(path)})
        assert error.culprit == "PIPELINE_CONFIG"
        assert str(path) in str(error.found)


def test_file_that_is_not_toml_names_file_and_line(tmp_path: Path) -> None:
    """The parser's line is passed on."""
    environ = toml(tmp_path, "[training]\nseed == 3\n")
    error = refused(environ)
    assert error.culprit == environ["PIPELINE_CONFIG"]
    assert "line 2" in str(error.found)


def test_file_that_is_not_text_is_named(tmp_path: Path) -> None:
    """Bytes that are not UTF-8."""
    path = tmp_path / "pipeline.toml"
    path.write_bytes(b"\xff\xfe")
    assert str(path) in str(refused({"PIPELINE_CONFIG": str(path)}))


def test_production_without_servers_names_each_missing_one() -> None:
    """The profile is the culprit, and every server that must be given is listed with its variable's section."""
    error = refused({"PIPELINE_PROFILE": "production"})
    for server in ("mlflow_uri", "release_url", "feast_registry", "online_store"):
        assert f"stores.{server}" in str(error.wanted)
    assert "PIPELINE_STORES__" in error.fix
    assert "PIPELINE_SIGNING__PUBLIC_KEYS" in error.fix


def test_production_names_only_what_is_missing() -> None:
    """Three of four servers are given."""
    error = refused(SERVERS)
    assert "stores.online_store" in str(error.wanted)
    assert "mlflow" not in str(error.wanted)


def test_production_with_servers_uses_them(tmp_path: Path) -> None:
    """The online store is a table, so it comes from the file."""
    environ = toml(tmp_path, '[stores.online_store]\ntype = "redis"\nconnection_string = "cache:6379"\n')
    settings = load_settings({**environ, **SERVERS})
    assert (settings.mlflow_uri, settings.release_url) == ("http://mlflow", "postgresql://db/release")
    assert settings.online_store["type"] == "redis"


def test_keys_of_bundles(tmp_path: Path) -> None:
    """Embedded: the pair of the data folder; in production the files that are named, several for a rotation."""
    environ = toml(tmp_path, '[stores.online_store]\ntype = "redis"\n')
    assert load_settings({**environ, **SERVERS}).public_key_files == (
        Path("/run/keys/new.pub"),
        Path("/run/keys/old.pub"),
    )
    embedded = load_settings({"PIPELINE_DATA_DIR": str(tmp_path)})
    assert embedded.public_key_files == (tmp_path / "keys/bundle_signing.pub",)


def test_files_without_a_folder_say_which_variable_is_missing() -> None:
    """source.kind = files alone cannot be used."""
    error = refused({"PIPELINE_SOURCE__KIND": "files"})
    assert "source.path" in str(error.wanted)
    assert "PIPELINE_SOURCE__PATH" in error.fix
    assert load_settings({"PIPELINE_SOURCE__KIND": "files", "PIPELINE_SOURCE__PATH": "/drops"}).source.path == "/drops"


def test_digest_changes_with_what_can_change_a_model_only() -> None:
    """The seed can; the folder, the replay clock, the port and the number of threads cannot."""
    plain = load_settings({}).digest
    same = {"PIPELINE_DATA_DIR": "/d", "PIPELINE_CALENDAR__UNTIL": "2017-02-19", "PIPELINE_SERVING__PORT": "1", "PIPELINE_TRAINING__THREADS": "1"}  # fmt: skip
    assert load_settings(same).digest == plain
    assert load_settings({"PIPELINE_TRAINING__SEED": "8"}).digest != plain


def test_secret_is_not_shown() -> None:
    """A webhook's address is a password."""
    settings = load_settings({"PIPELINE_ALERTS__WEBHOOK_URL": "https://hooks/secret"})
    assert "secret" not in repr(settings)
    assert settings.alerts.webhook_url.get_secret_value() == "https://hooks/secret"


def test_tools_are_told_their_places_and_to_send_nothing() -> None:
    """Telemetry is off in each of them."""
    found = tool_environment(load_settings({"PIPELINE_DATA_DIR": "/d"}))
    assert found["PIPELINE_WAREHOUSE_PATH"] == "/d/dbt/marts.duckdb"
    assert (found["DO_NOT_TRACK"], found["FEAST_USAGE"], found["DBT_SEND_ANONYMOUS_USAGE_STATS"]) == (
        "1",
        "False",
        "false",
    )


def test_database_without_a_url_says_which_variable_is_missing() -> None:
    """source.kind = sql alone cannot be used."""
    assert "PIPELINE_SOURCE__URL" in refused({"PIPELINE_SOURCE__KIND": "sql"}).fix


def test_the_databases_url_is_a_secret(tmp_path: Path) -> None:
    """Given as a value or in a file, it is handed out on request and shown by nothing else."""
    secret = "postgresql://shop:geheim@db/shop"
    path = tmp_path / "url"
    path.write_text(f"{secret}\n")
    for environ in ({"PIPELINE_SOURCE__URL": secret}, {"PIPELINE_SOURCE__URL_FILE": str(path)}):
        settings = load_settings({"PIPELINE_SOURCE__KIND": "sql", **environ})
        assert settings.source.database_url() == secret
        assert "geheim" not in f"{settings!r} {settings} {settings.model_dump_json()}"


def test_missing_url_file_is_named(tmp_path: Path) -> None:
    """The secret store did not mount it."""
    settings = load_settings({"PIPELINE_SOURCE__KIND": "sql", "PIPELINE_SOURCE__URL_FILE": str(tmp_path / "gone")})
    with pytest.raises(ConfigurationError, match="gone"):
        settings.source.database_url()


def test_misspelt_secret_is_not_repeated() -> None:
    """An unknown key is named with its value, but not with a password in it."""
    error = refused({"PIPELINE_SOURCE__URLL": "postgresql://shop:geheim@db/shop"})
    assert "geheim" not in str(error)
    assert "db/shop" in str(error.found)


def test_lists_and_tables_come_from_the_environment_as_json() -> None:
    """A day, a table of budgets, and nothing at all; a JSON error names the variable."""
    settings = load_settings(
        {
            "PIPELINE_CALENDAR__CLOSED_DAYS": '["2017-12-25", "2018-01-01"]',
            "PIPELINE_VALIDATION__NULL_BUDGETS": '{"purchases.store_id": [0.01, 0.2]}',
            "PIPELINE_CALENDAR__LAST_DAY": "none",
        }
    )
    assert settings.calendar.closed_days == (date(2017, 12, 25), date(2018, 1, 1))
    assert settings.validation.null_budgets == {"purchases.store_id": (0.01, 0.2)}
    assert settings.calendar.last_day is None
    with pytest.raises(ConfigurationError, match="PIPELINE_CALENDAR__CLOSED_DAYS"):
        load_settings({"PIPELINE_CALENDAR__CLOSED_DAYS": '["2017-12-25"'})


def test_lists_tables_and_nothing_come_from_the_environment() -> None:
    """Lists and tables as JSON, None as `none`, as docs/configuration.md says."""
    found = load_settings(
        {
            "PIPELINE_CALENDAR__CLOSED_DAYS": '["2017-12-25", "2017-12-26"]',
            "PIPELINE_STREAM__OPTIONS": '{"security.protocol": "SASL_SSL", "socket.keepalive.enable": true}',
            "PIPELINE_STREAM__IDLE_MINUTES": "none",
        }
    )
    assert found.calendar.closed_days == (date(2017, 12, 25), date(2017, 12, 26))
    assert {name: value.get_secret_value() for name, value in found.stream.options.items()} == {
        "security.protocol": "SASL_SSL",
        "socket.keepalive.enable": "true",
    }
    assert found.stream.idle_minutes is None


@pytest.mark.parametrize(
    "options",
    [
        '{"sasl.password": "geheim"',
        '{"sasl.password": {"a": "geheim"}}',
        "sasl.password=geheim",
        '{"auto.offset.reset": "geheim"}',
    ],
    ids=["no JSON", "nested", "no table", "not to be chosen"],
)
def test_refused_options_do_not_show_their_values(options: str) -> None:
    """What is wrong is said by name."""
    error = refused({"PIPELINE_STREAM__OPTIONS": options})
    assert "options" in error.culprit.lower()
    assert "geheim" not in str(error)


def test_options_do_not_show_in_the_settings() -> None:
    """Logs print settings."""
    assert "geheim" not in repr(load_settings({"PIPELINE_STREAM__OPTIONS": '{"sasl.password": "geheim"}'}))


def test_stream_needs_an_address() -> None:
    """Kind stream without brokers: the variable to set is named."""
    error = refused({"PIPELINE_SOURCE__KIND": "stream"})
    assert "PIPELINE_STREAM__BOOTSTRAP_SERVERS" in error.fix


def test_a_relative_data_folder_is_in_the_working_directory() -> None:
    """MLflow's and SQLite's addresses cannot be relative."""
    assert load_settings({"PIPELINE_DATA_DIR": "daten"}).data_dir == Path.cwd() / "daten"


def test_another_data_folder_writes_to_no_server_and_tells_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A replay of a production shop: its registry, releases, stores, key, marts and people are not the replay's."""
    ours = {
        "PIPELINE_EVENTS__URL": "postgresql://db/events",
        "PIPELINE_STORES__ONLINE_STORE": '{"type": "redis", "connection_string": "redis:6379"}',
        "PIPELINE_SIGNING__KEY_FILE": "/run/keys/new.pem",
        "PIPELINE_ALERTS__WEBHOOK_URL": "https://hooks/secret",
        "PIPELINE_ALERTS__SLACK_URL": "https://slack/secret",
        "PIPELINE_ALERTS__SMTP_HOST": "mail",
        "PIPELINE_ALERTS__EMAIL_FROM": "a@shop",
        "PIPELINE_ALERTS__EMAIL_TO": '["b@shop"]',
        "PIPELINE_DBT_TARGET": "postgres",
        "DAGSTER_HOME": "/opt/dagster",
    }
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("PIPELINE_", "DAGSTER_"))}
    monkeypatch.setattr(os, "environ", {**environ, **SERVERS, **ours})
    get_settings.cache_clear()
    try:
        settings = with_data_dir(tmp_path)
        assert os.environ["DAGSTER_HOME"] == str(PROJECT_ROOT)
    finally:
        get_settings.cache_clear()
    embedded = load_settings({"PIPELINE_DATA_DIR": str(tmp_path)})
    names = ("profile", "dbt_target", "mlflow_uri", "release_url", "events_url", "feast_registry", "online_store")
    for name in (*names, "signing", "public_key_files"):
        assert getattr(settings, name) == getattr(embedded, name), name
    sinks = alerts_of(settings.alerts, tmp_path).sinks()
    assert [type(sink) for sink in sinks] == [LogSink]
