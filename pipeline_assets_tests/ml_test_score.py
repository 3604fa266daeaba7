"""The ML Test Score of Breck et al. (2017), counted from markers on tests: `python -m pipeline_assets_tests.ml_test_score [--write]`.

A test says what it shows with `@pytest.mark.ml_test("I4")`; the test that seeds a fault and sees it found says
`@pytest.mark.ml_test("I4", control=True)`. An item counts 1 with both, 0.5 when it is done by hand and documented, or needs live
users and is shown without them (`HALF`, with the reason), 0 otherwise. Marked tests are run by .ci/run, so a marker that fails
fails the build. The score is the least of the four sections.
"""

from __future__ import annotations

import argparse
import ast
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

TESTS = Path(__file__).parent
ROOT = TESTS.parent
PAGE = ROOT / "docs/ml-test-score.md"
SECTIONS = {"D": "Data", "M": "Model", "I": "Infrastructure", "Mo": "Monitoring"}
ITEMS = {
    "D1": "a schema for features",
    "D2": "every feature earns its place",
    "D3": "the cost of each feature is known",
    "D4": "denied columns are not used",
    "D5": "privacy is controlled through the whole pipeline",
    "D6": "a new feature is added quickly",
    "D7": "feature code is tested",
    "M1": "specifications are reviewed",
    "M2": "offline and online measures agree",
    "M3": "parameters are tuned",
    "M4": "the cost of a stale model is known",
    "M5": "a simpler model is not better",
    "M6": "quality on slices",
    "M7": "inclusion: exposure of brands and of the tail",
    "I1": "training is reproducible",
    "I2": "model code is unit-tested",
    "I3": "the whole pipeline is integration-tested",
    "I4": "quality is judged before a model serves",
    "I5": "one example can be debugged",
    "I6": "a canary before full traffic",
    "I7": "rollback",
    "Mo1": "changes of dependencies are noticed",
    "Mo2": "invariants of training and served inputs",
    "Mo3": "training and serving are not skewed",
    "Mo4": "models are not too stale",
    "Mo5": "the model is numerically stable",
    "Mo6": "no regression of speed, memory or throughput",
    "Mo7": "no regression of quality on served data",
}
# At most half a point, and why: done by hand and written down there, or in need of people who are not there.
HALF = {
    "D2": (
        "benchmarks/results/evaluation.md",
        "CI shows on the generated shop that the ablation tells a group with signal from one without; that of the sample is run by hand, and "
        "one of its eight groups, product popularity, does not earn its place in NDCG",
    ),
    "D5": ("docs/runbook.md", "no ids in metrics, logs and alerts; erasing a customer everywhere is not there yet"),
    "M1": ("CONTRIBUTING.md", "every model records its commit and a dirty checkout; reviews are the team's"),
    "M2": ("docs/design/reliability.md", "agreement is shown on past purchases; what live users do is not known"),
    "I6": ("docs/design/reliability.md", "real processes and real traffic, but no real users"),
    "Mo7": ("docs/design/reliability.md", "real purchases against recommendations that nobody was shown"),
}
# What a full point does not say.
LIMITS = {
    "M3": "on the generated shop; the sample's parameters are searched by hand (ADR 20)",
    "M4": "on the generated shop; the sample's curve is measured by hand (ADR 24)",
}


@dataclass(frozen=True)
class Marked:
    """A test with a marker."""

    item: str
    is_control: bool
    test: str


@dataclass(frozen=True)
class Scored:
    """An item with its points, and why."""

    item: str
    points: float
    why: str


def markers(source: str, path: str) -> list[Marked]:
    """The markers of a test file, from its text: nothing is imported.

    Raises:
        ValueError: a marker names no item, or the item is not a text.
    """
    found = []
    for node in ast.walk(ast.parse(source)):
        for decorator in node.decorator_list if isinstance(node, ast.FunctionDef) else []:
            if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "pytest.mark.ml_test":
                item = ast.literal_eval(decorator.args[0])
                if item not in ITEMS:
                    raise ValueError(f"{path}::{node.name} is marked {item!r}, which is no item")
                control = any(word.arg == "control" and ast.literal_eval(word.value) for word in decorator.keywords)
                found.append(Marked(item, control, f"{path}::{node.name}"))
    return found


def all_markers() -> list[Marked]:
    """The markers of every test file."""
    paths = sorted(TESTS.rglob("test_*.py"))
    return [mark for path in paths for mark in markers(path.read_text(), path.relative_to(TESTS).as_posix())]


def score(marked: Iterable[Marked], half: Mapping[str, tuple[str, str]]) -> list[Scored]:
    """Every item with its points."""
    marked = list(marked)
    found = []
    for item in ITEMS:
        checks = [mark for mark in marked if mark.item == item and not mark.is_control]
        controls = [mark for mark in marked if mark.item == item and mark.is_control]
        limit = f"; {LIMITS[item]}" if item in LIMITS else ""
        if item in half:
            page, why = half[item]
            found.append(Scored(item, 0.5, f"{why} ([{Path(page).name}]({_relative(page)}))"))
        elif checks and controls:
            found.append(Scored(item, 1.0, f"`{checks[0].test}`; control `{controls[0].test}`{limit}"))
        elif checks:
            found.append(Scored(item, 0.5, f"`{checks[0].test}`; no negative control"))
        else:
            found.append(Scored(item, 0.0, "nothing shows it"))
    return found


def _relative(page: str) -> str:
    return page.removeprefix("docs/") if page.startswith("docs/") else f"../{page}"


def sections(scored: Iterable[Scored]) -> dict[str, float]:
    """Section -> its points."""
    totals = dict.fromkeys(SECTIONS.values(), 0.0)
    for found in scored:
        totals[SECTIONS[found.item.rstrip("0123456789")]] += found.points
    return totals


def page(scored: list[Scored]) -> str:
    """docs/ml-test-score.md."""
    totals = sections(scored)
    least = min(totals, key=lambda name: totals[name])
    lines = [
        "# ML Test Score",
        "",
        "By Breck et al., *The ML Test Score* (2017): four sections of seven items, a point each when automated and repeated, half when manual and",
        "documented; a full point here also needs a negative control, a seeded fault that its test finds. The score is the *least* of the sections. Written by",
        "`.venv/bin/python -m pipeline_assets_tests.ml_test_score --write` from the markers on the tests; a test compares.",
        "",
        f"**Score: {totals[least]:g}** ({least} is the weakest): "
        + ", ".join(f"{name} {points:g}" for name, points in totals.items())
        + ".",
        "",
        "| item | | points | shown by, or why not more |",
        "|---|---|---|---|",
        *(f"| {found.item} | {ITEMS[found.item]} | {found.points:g} | {found.why} |" for found in scored),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Print the score; with --write write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.relative_to(ROOT)}")
    scored = score(all_markers(), HALF)
    for found in scored:
        print(f"{found.item:<4} {found.points:<4g} {ITEMS[found.item]}")
    for name, points in sections(scored).items():
        print(f"{name:<15}{points:g} of 7")
    print(f"ML Test Score: {min(sections(scored).values()):g}")
    if parser.parse_args().write:
        PAGE.write_text(page(scored))


if __name__ == "__main__":
    main()
