"""No automation condition may request a partition whose upstream is blocked (docs/design/reliability.md, E2).

`AutomationCondition.eager()` requested a bad partition after its blocking check had failed; with
`all_deps_blocking_checks_passed()` it did not (measured).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import dagster as dg
import pytest
from dagster._core.definitions.declarative_automation.operators import AndAutomationCondition, OrAutomationCondition

GUARD = dg.AutomationCondition.all_deps_blocking_checks_passed()

if TYPE_CHECKING:
    Condition = dg.AutomationCondition


def is_guarded(condition: Condition) -> bool:
    """Whether the condition cannot be true while a blocking check upstream failed: the guard is and-ed, on every branch."""
    if condition.with_label(None) == GUARD.with_label(None):
        return True
    if isinstance(condition, AndAutomationCondition):
        return any(is_guarded(child) for child in condition.children)
    if isinstance(condition, OrAutomationCondition):
        return all(is_guarded(child) for child in condition.children)
    return False


def unguarded(definitions: dg.Definitions) -> list[str]:
    """Assets and checks with a condition that lacks the guard."""
    graph = definitions.resolve_asset_graph()
    nodes = [graph.get(key) for key in [*graph.get_all_asset_keys(), *graph.asset_check_keys]]
    return [str(node.key) for node in nodes if node.automation_condition and not is_guarded(node.automation_condition)]


def test_every_condition_waits_for_blocking_checks(definitions: dg.Definitions) -> None:
    """No asset or check is requested on a blocked upstream."""
    assert unguarded(definitions) == []


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (dg.AutomationCondition.eager(), False),
        (dg.AutomationCondition.on_cron("0 6 * * *"), False),
        (dg.AutomationCondition.eager() & GUARD, True),
        (GUARD & dg.AutomationCondition.on_cron("0 6 * * *"), True),
        (dg.AutomationCondition.eager() | GUARD, False),
        ((dg.AutomationCondition.eager() & GUARD) | dg.AutomationCondition.missing(), False),
        ((dg.AutomationCondition.eager() & GUARD) | (dg.AutomationCondition.missing() & GUARD), True),
        (dg.AutomationCondition.eager() & ~GUARD, False),
        (dg.AutomationCondition.eager().with_label(GUARD.get_label() or ""), False),
    ],
)
def test_the_guard_is_recognised(condition: Condition, expected: bool) -> None:
    """And-ed counts; or-ed, negated, missing on one branch or only so labelled does not."""
    assert is_guarded(condition) is expected


def test_an_eager_asset_is_found() -> None:
    """Negative control: an asset that is merely eager."""

    @dg.asset
    def upstream() -> None: ...

    @dg.asset(deps=[upstream], automation_condition=dg.AutomationCondition.eager())
    def hasty() -> None: ...

    @dg.asset(deps=[upstream], automation_condition=dg.AutomationCondition.eager() & GUARD)
    def careful() -> None: ...

    assert unguarded(dg.Definitions(assets=[upstream, hasty, careful])) == ["AssetKey(['hasty'])"]
