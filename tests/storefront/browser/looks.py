"""How browser tests look at a page: until something is so, for what moves, and with axe-core's eyes."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Page as Tab

SHIFTS_SCRIPT = (
    "window.shifts = []; new PerformanceObserver(list => { for (const entry of list.getEntries()) shifts.push("
    "[entry.value, entry.sources.map(({ node }) => node?.nodeName + '.' + node?.className)]) })"
    ".observe({ type: 'layout-shift', buffered: true })"
)
"""Collects layout shifts, with what moved, in `shifts`. Those within half a second of an input count as well."""


def until(tab: "Tab", condition: Callable[[], Any], within_s: float = 10) -> Any:
    """Wait for something that the page does not show; the page goes on meanwhile."""
    for _ in range(round(within_s * 20)):
        if found := condition():
            return found
        tab.wait_for_timeout(50)
    raise AssertionError("this did not come to pass")


def axe(tab: "Tab") -> list[str]:
    """What axe-core objects to, one line each."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(tab, options={"resultTypes": ["violations"]}).response["violations"]
    return [f"{rule['id']}: {node['html'][:120]} {node['failureSummary']}" for rule in found for node in rule["nodes"]]
