"""deploy/Dockerfile and deploy/compose.yml against the code. Images are not built here: what can be wrong on paper is looked for."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline_assets.recommender.errors import ConfigurationError
from pipeline_assets.settings import NOT_SETTINGS, Settings, load_settings
from pipeline_assets_tests.contract.repository import ROOT

DEPLOY = ROOT / "deploy"
COMPOSE = yaml.safe_load((DEPLOY / "compose.yml").read_text())
SERVICES: Mapping[str, Mapping[str, Any]] = COMPOSE["services"]
OURS = ("webserver", "daemon", "api", "metrics")
VALUES = {"FIRST_DAY": "2025-01-01", "POSTGRES_PASSWORD": "p", "GRAFANA_PASSWORD": "g", "DROPS": "/srv/drops"}
VARIABLE = re.compile(r"\$\{(\w+)(?::[-?]([^}]*))?\}")


def filled(text: str) -> str:
    """What compose makes of `${NAME}`, `${NAME:-default}` and `${NAME:?message}`."""
    return VARIABLE.sub(lambda match: VALUES.get(match[1], match[2] or ""), text)


def settings_of(service: Mapping[str, Any]) -> Settings:
    """The settings of a service's environment, as its process would read them."""
    return load_settings({name: filled(str(value)) for name, value in service["environment"].items()})


def faults(name: str, service: Mapping[str, Any]) -> list[str]:
    """What is not as it must be: the host's interface, the image's version, the user."""
    found = [f"{name}: {port} is not on loopback" for port in service.get("ports", []) if not str(port).startswith("127.0.0.1:")]  # fmt: skip
    tag = service["image"].rpartition(":")[2] if ":" in service["image"] else "latest"
    found += [f"{name}: no version of {service['image']}"] if tag == "latest" else []
    is_root = str(service.get("user", "root")).split(":")[0] in ("root", "0")
    found += (
        [f"{name}: runs as root"] if is_root and name != "postgres" else []
    )  # its entry point gives root up by itself
    return found


def test_all_services_are_there() -> None:
    """What docs/deployment.md promises."""
    assert set(SERVICES) == {*OURS, "postgres", "redis", "prometheus", "alertmanager", "grafana"}


@pytest.mark.parametrize("name", SERVICES)
def test_loopback_version_and_user(name: str) -> None:
    """No service is reachable from a network, floats, or is root."""
    assert faults(name, SERVICES[name]) == []


def test_a_careless_service_is_found() -> None:
    """The control: each of the three faults, and an image without a tag."""
    careless = {"image": "redis:latest", "ports": ["6379:6379"], "user": "0:0"}
    assert len(faults("x", careless)) == 3
    assert faults("x", {"image": "redis", "user": "redis"}) == ["x: no version of redis"]


@pytest.mark.parametrize("name", OURS)
def test_our_environment_is_a_configuration(name: str) -> None:
    """Every name is a setting, every value allowed, and profile production has what it insists on."""
    settings = settings_of(SERVICES[name])
    assert (settings.profile, settings.calendar.clock, settings.calendar.last_day) == ("production", "wall", None)
    assert settings.stores.online_store == {"type": "redis", "connection_string": "redis:6379"}


def test_a_wrong_name_is_refused() -> None:
    """The control: a setting that does not exist."""
    wrong = {**SERVICES["api"], "environment": {**SERVICES["api"]["environment"], "PIPELINE_STORES__MLFLOW": "x"}}
    with pytest.raises(ConfigurationError, match="unknown key"):
        settings_of(wrong)


def test_who_gets_which_secret() -> None:
    """The private key is for those who build bundles. The API has keys, or it would refuse to bind; webserver and daemon switch everything on."""
    assert {name for name in OURS if settings_of(SERVICES[name]).signing.key_file} == {"webserver", "daemon"}
    mounted = {name: {secret["source"] for secret in SERVICES[name]["secrets"]} for name in OURS}
    assert {name for name in OURS if "signing_key" in mounted[name]} == {"webserver", "daemon"}
    assert settings_of(SERVICES["api"]).access.keys_file == Path("/run/secrets/api_keys.toml")
    assert settings_of(SERVICES["daemon"]).automation.is_on
    for name in OURS:
        places = [value for value in map(str, SERVICES[name]["environment"].values()) if "/run/secrets/" in value]
        targets = {secret["target"] for secret in SERVICES[name]["secrets"]}
        assert {re.sub(r'[\]"\[]', "", place).rpartition("/")[2] for place in places} <= targets


def test_commands_and_their_options_exist() -> None:
    """Parsed by the programs themselves; the API's by its module's path and `--help` text."""
    from dagster._daemon.cli import cli as daemon
    from dagster_webserver.cli import dagster_webserver

    from pipeline_assets.cli import parser
    from pipeline_assets.serving.__main__ import main

    program, *options = SERVICES["webserver"]["command"]
    assert (program, dagster_webserver.make_context(program, options).params["port"]) == ("dagster-webserver", 3000)
    program, verb, *options = SERVICES["daemon"]["command"]
    assert (program, daemon.commands[verb].make_context(verb, options).info_name) == ("dagster-daemon", "run")
    assert SERVICES["daemon"]["healthcheck"]["test"][2] in daemon.commands
    program, *options = SERVICES["metrics"]["command"]
    assert (program, parser().parse_args(options).port) == ("pipeline-assets", 9108)
    assert SERVICES["api"]["command"][:4] == ["python", "-O", "-m", "pipeline_assets.serving"]
    with pytest.raises(SystemExit) as ended:  # argparse reads all options before it prints the help
        main([*SERVICES["api"]["command"][4:], "--help"])
    assert ended.value.code == 0
    for binary in ("dagster-webserver", "dagster-daemon", "pipeline-assets", "dbt"):
        assert shutil.which(binary, path=str(ROOT / ".venv/bin")), binary


def test_files_and_variables_exist() -> None:
    """What is mounted from the checkout is there (secrets are yours), and env.example has every variable without a default."""
    for service in SERVICES.values():
        for volume in service.get("volumes", []):
            source = str(volume).split(":")[0]
            assert not source.startswith("./") or (DEPLOY / source).exists(), source
    text = (DEPLOY / "compose.yml").read_text()
    known = {line.split("=")[0] for line in (DEPLOY / "compose/env.example").read_text().splitlines() if "=" in line}
    assert {match[1] for match in VARIABLE.finditer(text)} == known
    databases = re.findall(r"create database (\w+);", (DEPLOY / "compose/databases.sql").read_text())
    assert set(re.findall(r"@postgres/(\w+)", text)) == set(databases)


def test_prometheus_scrapes_services_that_exist() -> None:
    """Targets are services at the ports that their commands name; jobs are those of the configuration for one machine."""
    ours, plain = (yaml.safe_load((DEPLOY / path).read_text()) for path in ("compose/prometheus.yml", "prometheus/prometheus.yml"))  # fmt: skip
    assert [job["job_name"] for job in ours["scrape_configs"]] == [job["job_name"] for job in plain["scrape_configs"]]
    for job in ours["scrape_configs"]:
        (target,) = job["static_configs"][0]["targets"]
        name, _, port = target.partition(":")
        assert port in SERVICES[name]["command"]


def test_the_image() -> None:
    """The lock with its hashes, no root, no address of a registry, and only names that somebody reads."""
    text = (DEPLOY / "Dockerfile").read_text()
    assert "--require-hashes --no-deps -r requirements.lock" in text
    last = text.split("FROM ")[-1]
    assert re.search(r"^USER (?!0|root)\d+$", last, re.MULTILINE)
    assert "latest" not in text
    assert "://" not in text
    for name in re.findall(r"\bPIPELINE_\w+", text):
        assert name in NOT_SETTINGS or load_settings({name: "/srv/data"})
