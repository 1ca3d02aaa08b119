"""A plugin for the peers' own pytest: their client is ours, and the tests of `deselected.toml` do not run.

A result counts only if the test has made a client; the others test something else of theirs.
"""

from __future__ import annotations

import importlib
import json
import os
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

import peers_adapter as adapter
import pytest

PEER = os.environ["ANYIO_MCP_PEER"]
NAMES = {
    "fastmcp": ("fastmcp", "fastmcp.client", "fastmcp.client.client"),
    "mcp": ("mcp", "mcp.client", "mcp.client.client"),
}
REASONS: dict[str, list[str]] = tomllib.loads(Path(__file__).with_name("deselected.toml").read_text())[PEER]

results: Counter[str] = Counter()
failed: list[str] = []
_using: set[str] = set()


def pytest_configure() -> None:
    ours = adapter.FastMCPClient if PEER == "fastmcp" else adapter.SDKClient
    for name in NAMES[PEER]:
        importlib.import_module(name).Client = ours


def _reason(nodeid: str) -> str | None:
    for reason, patterns in REASONS.items():
        if any(pattern in nodeid for pattern in patterns):
            return reason
    return None


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    kept = [item for item in items if _reason(item.nodeid) is None]
    results["deselected"] = len(items) - len(kept)
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = kept


def pytest_runtest_setup(item: pytest.Item) -> None:
    adapter.made.clear()


def pytest_runtest_logreport(report: Any) -> None:
    if adapter.made:
        _using.add(report.nodeid)
    if report.when == "call" or report.outcome == "failed":
        kind = "of ours" if report.nodeid in _using else "of something else"
        results[f"{report.outcome} {kind}"] += 1
        if report.outcome == "failed":
            crash = getattr(report.longrepr, "reprcrash", None)
            why = str(crash.message if crash else report.longrepr).strip().partition("\n")[0]
            failed.append(f"{kind}: {report.nodeid} -- {why[:200]}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    terminalreporter.write_sep("=", f"{PEER}'s tests on our client")
    terminalreporter.write_line(json.dumps(dict(results)))
    for each in failed:
        terminalreporter.write_line(each)
