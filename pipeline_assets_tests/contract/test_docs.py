"""The documents agree with the code: settings, verbs, links, anchors, and commands that something executes."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydantic
import pytest

from pipeline_assets.settings import NOT_SETTINGS, PROJECT_ROOT, Settings, load_settings
from pipeline_assets_tests.contract.repository import ROOT, anchors, blocks, files, without_blocks

PAGES = {path.relative_to(ROOT).as_posix(): path.read_text() for path in files("*.md")}
CONFIGURATION = PAGES["docs/configuration.md"]
ROW = re.compile(
    r"^\| `(?P<key>[\w.]+)` \| (?P<variable>`[A-Z_]+`|TOML only) \| (?P<default>[^|]+) \| (?P<meaning>[^|]+) \|$",
    re.MULTILINE,
)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
MAKE_VERB = re.compile(r"\bmake ([a-z]+)\b")
CLI_VERB = re.compile(r"\bpipeline-assets ([a-z]+(?:-[a-z]+)*)\b")
MARKER = re.compile(r"<!-- executed by (\S+?)(?:::(\w+))? -->")


# Settings


def leaves(model: type[pydantic.BaseModel], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, default) of every setting."""
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, pydantic.BaseModel):
            yield from leaves(kind, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field.get_default(call_default_factory=True)


def shown(default: Any) -> str:
    """A default as the page writes it."""
    plain = default.get_secret_value() if isinstance(default, pydantic.SecretStr) else default
    if plain is None:
        return "none"
    if plain in ("", {}):
        return "empty"
    if isinstance(plain, tuple):
        return f"`{json.dumps([str(item) for item in plain])}`"
    return f"`{plain.relative_to(PROJECT_ROOT) if isinstance(plain, Path) else plain}`"


def documented(page: str) -> dict[str, tuple[str, str]]:
    """Setting -> (environment variable, default) as the page's tables say."""
    return {row["key"]: (row["variable"].strip("`"), row["default"]) for row in ROW.finditer(page)}


SETTINGS = dict(leaves(Settings))


def test_every_setting_is_documented_with_its_default() -> None:
    """docs/configuration.md has a row for each setting and none besides; name, variable and default are the code's."""
    wanted = {key: ("PIPELINE_" + key.replace(".", "__").upper(), shown(default)) for key, default in SETTINGS.items()}
    assert documented(CONFIGURATION) == wanted


@pytest.mark.parametrize("key", [key for key, default in SETTINGS.items() if isinstance(default, bool | int | float)])
def test_the_documented_variable_sets_it(key: str) -> None:
    """The environment form in the table reaches its setting: the default, given back as text, is accepted and changes nothing."""
    variable, default = documented(CONFIGURATION)[key]
    assert load_settings({variable: default.strip("`")}) == load_settings({})


def test_other_variables_are_documented() -> None:
    """What dagster.yaml and dbt read besides is on the page too."""
    named = set(re.findall(r"`(PIPELINE_[A-Z_]+)`", CONFIGURATION))
    read = set(
        re.findall(r"PIPELINE_[A-Z_]+", (ROOT / "dbt/profiles.yml").read_text() + (ROOT / "dagster.yaml").read_text())
    )
    assert (read | NOT_SETTINGS) - named == set()


def test_the_documented_toml_loads(tmp_path: Path) -> None:
    """The settings example is accepted as it stands, and the mapping example names columns of the contract."""
    from pipeline_assets.sources.mapping import read_mapping

    settings, mapping = (content for _, content in blocks(CONFIGURATION, "toml"))
    (tmp_path / "shop.toml").write_text(settings)
    (tmp_path / "mapping.toml").write_text(mapping)
    loaded = load_settings({"PIPELINE_CONFIG": str(tmp_path / "shop.toml")})
    assert (loaded.source.kind, loaded.training.label_weeks) == ("files", 8)
    assert set(read_mapping(tmp_path / "mapping.toml").feeds) == {"purchases", "products"}


def test_a_forgotten_or_wrong_row_is_seen() -> None:
    """Negative control: without a row, or with another default, the page does not equal the code."""
    row = next(ROW.finditer(CONFIGURATION))
    assert set(documented(CONFIGURATION)) - set(documented(CONFIGURATION.replace(row[0], ""))) == {row["key"]}
    assert documented(CONFIGURATION.replace("| `7` |", "| `8` |")) != documented(CONFIGURATION)


# Verbs


def make_verbs() -> set[str]:
    return set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))


def cli_verbs() -> set[str]:
    from pipeline_assets.cli import parser

    (choices,) = (action.choices for action in parser()._actions if isinstance(action, argparse._SubParsersAction))
    return set(choices)


def code(markdown: str) -> str:
    """What a page sets in code: spans and blocks. Prose such as "make it" is not a command, nor are the words of an error."""
    fenced = [match[1] for match in re.finditer(r"^```\w*\n(.*?)^```", markdown, flags=re.MULTILINE | re.DOTALL)]
    spans = re.findall(r"`([^`\n]+)`", without_blocks(markdown))
    return "\n".join([*(span for span in spans if "Fix: " not in span), *fenced])


def unknown_verbs(text: str) -> list[str]:
    found = [f"make {verb}" for verb in MAKE_VERB.findall(text) if verb not in make_verbs()]
    return found + [f"pipeline-assets {verb}" for verb in CLI_VERB.findall(text) if verb not in cli_verbs()]


@pytest.mark.parametrize("page", sorted(PAGES))
def test_every_verb_in_the_docs_exists(page: str) -> None:
    """Each `make x` is a target, each `pipeline-assets x` a verb of the command line."""
    assert unknown_verbs(code(PAGES[page])) == []


def test_every_verb_of_the_makefile_exists() -> None:
    """A target that calls the command line calls a verb it has."""
    recipes = "\n".join(line for line in (ROOT / "Makefile").read_text().splitlines() if line.startswith("\t"))
    assert [f"pipeline-assets {verb}" for verb in CLI_VERB.findall(recipes) if verb not in cli_verbs()] == []


def test_every_verb_is_in_the_docs() -> None:
    """The other way round: no target and no verb that nobody can find out about."""
    text = "\n".join(PAGES.values())
    assert make_verbs() - set(MAKE_VERB.findall(text)) == set()
    assert {
        verb for verb in cli_verbs() if not re.search(rf"`(pipeline-assets )?{verb}`|pipeline-assets {verb}", text)
    } == set()


def test_an_unknown_verb_is_found() -> None:
    """Negative control: verbs that do not exist, in a span and in a block; prose is left alone."""
    page = "make it so, `make coffee`\n\n```bash\npipeline-assets brew\n```\n"
    assert unknown_verbs(code(page)) == ["make coffee", "pipeline-assets brew"]


# Links


def broken_links(folder: Path, markdown: str) -> list[str]:
    """Relative links of a page in `folder` whose file, or whose anchor in it, does not exist."""
    broken = []
    for target in LINK.findall(without_blocks(markdown)):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        path = (folder / name).resolve() if name else None
        there = path is None or path.exists()
        if not there or (anchor and anchor not in anchors(path.read_text() if path else markdown)):
            broken.append(target)
    return broken


@pytest.mark.parametrize("page", sorted(PAGES))
def test_links_and_images_resolve(page: str) -> None:
    """Every relative link and image of a page leads to a file of the repository, and every anchor to a heading."""
    assert broken_links((ROOT / page).parent, PAGES[page]) == []


def test_alerts_link_to_sections_of_the_runbook() -> None:
    """Each `RUNBOOK#anchor` in the code is a heading of docs/runbook.md."""
    source = (ROOT / "pipeline_assets/automation.py").read_text()
    assert 'RUNBOOK = "docs/runbook.md"' in source
    named = set(re.findall(r"\{RUNBOOK\}#([\w-]+)", source))
    assert named
    assert named - anchors(PAGES["docs/runbook.md"]) == set()


def test_documents_that_the_code_names_exist() -> None:
    """A comment that says docs/adr/0001-lake.md leads somewhere."""
    tests = ROOT / "pipeline_assets_tests"  # may name what is not there
    texts = {
        path: path.read_text()
        for path in files("*.py", "*.sql", "*.yml", "*.yaml", "*.cfg", "*.toml", "Makefile", "*.lock")
        if tests not in path.parents
    }
    named = {
        (path.name, name) for path, text in texts.items() for name in re.findall(r"\bdocs/[\w./-]+\.(?:md|png)\b", text)
    }
    assert {(where, name) for where, name in named if not (ROOT / name).exists()} == set()


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    """Negative control: a missing file, a missing image, a missing anchor; addresses and code are not links."""
    (tmp_path / "there.md").write_text("# A heading, here\n")
    page = "[a](there.md) [b](gone.md) ![c](gone.png) [d](there.md#a-heading-here) [e](there.md#gone) [f](https://x.org)\n```\n[g](no.md)\n```\n"
    assert broken_links(tmp_path, page) == ["gone.md", "gone.png", "there.md#gone"]


# Commands


def unexecuted(readme: str) -> list[str]:
    """Shell blocks that neither .ci/run nor a test executes, by their first line."""
    ci = (ROOT / ".ci/run").read_text()
    found = []
    for before, content in blocks(readme, "bash"):
        commands = [line for line in content.splitlines() if line.strip() and not line.startswith("#")]
        marker = MARKER.fullmatch(before)
        if marker is None:
            found.append(f"{commands[0]}: no marker before it")
        elif marker[1] == ".ci/run":
            found += [
                f"{line}: not in .ci/run"
                for line in commands
                if not re.search(rf"(?<![\w-]){re.escape(line)}(?![\w-])", ci)
            ]
        else:
            test = ROOT / marker[1]
            if not test.is_file() or f"def {marker[2]}(" not in test.read_text():
                found.append(f"{commands[0]}: there is no test {marker[1]}::{marker[2]}")
    return found


@pytest.mark.parametrize("page", ["README.md", "docs/commands.md"])
def test_the_pages_commands_are_executed(page: str) -> None:
    """Every shell block of the page names what executes it, and that exists."""
    assert blocks(PAGES[page], "bash")
    assert unexecuted(PAGES[page]) == []


@pytest.mark.parametrize("language", ["sh", "shell", "console", "zsh"])
def test_shell_blocks_have_one_name(language: str) -> None:
    """Shell is written ```bash: a block of another name would escape the test above."""
    assert blocks(PAGES["README.md"], language) == []


def test_a_command_that_nothing_executes_is_found() -> None:
    """Negative control: no marker, a marker to nowhere, a command that .ci/run does not have."""
    test = "pipeline_assets_tests/contract/test_docs.py"
    page = f"text\n```bash\na\n```\n<!-- executed by {test}::test_none -->\n```bash\nb\n```\n<!-- executed by .ci/run -->\n```bash\nmake run\nmake gold\n```\n"
    assert unexecuted(page) == [
        "a: no marker before it",
        f"b: there is no test {test}::test_none",
        "make gold: not in .ci/run",
    ]


def test_the_changelog_has_an_unreleased_section() -> None:
    """Keep a Changelog: what is not released yet has its place."""
    assert "## [Unreleased]" in PAGES["CHANGELOG.md"]


def test_the_workflow_runs_ci_run() -> None:
    """GitHub's flow is .ci/run and nothing else, on Python 3.11."""
    import yaml

    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    (job,) = workflow["jobs"].values()
    assert [step["run"] for step in job["steps"] if "run" in step] == ["bash .ci/run"]
    assert '"3.11"' in json.dumps(job["steps"])
