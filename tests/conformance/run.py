"""Runs the official conformance suite against `client.py`: both eras on both backends.

`python -m tests.conformance.run DIRECTORY [SCENARIO...]`, where DIRECTORY holds the suite, put there by
`tests/node.py`; `nox -s conformance` does both. Prints one line for each run and what went wrong in it.
Exits with 1 if anything fails that `expected_failures.toml` does not name, or if something it names
does not fail.

The suite can run all of its scenarios by itself, but then it starts all clients at once, and its limit
of 30 s for each counts while they wait for a processor. Here as many run as there are processors.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.node import command

HERE = Path(__file__).parent
ROOT = HERE.parents[1]

PACKAGE = "@modelcontextprotocol/conformance"
VERSIONS = ("2025-11-25", "2026-07-28")
BACKENDS = ("asyncio", "trio")

SCENARIO_SECONDS = 60.0
"""For one scenario. The suite gives its client 30 s of them."""
TOTAL_SECONDS = 900.0
"""For everything: what has not begun by then has failed."""


@dataclass(frozen=True)
class Result:
    """What became of one scenario."""

    scenario: str
    checks: list[dict[str, Any]]
    failed: dict[str, str] = field(default_factory=dict)
    """What failed and why, by check; the check `exit` is the client's exit status."""


def scenarios(suite: list[str], version: str) -> list[str]:
    """The scenarios of a version, and those of extensions, which belong to none."""

    def listed(*arguments: str) -> list[tuple[str, str]]:
        lines = subprocess.run(
            [*suite, "list", "--client", *arguments], check=True, capture_output=True, text=True, timeout=60
        ).stdout
        return re.findall(r"^ +- (\S+) \[(.+)\]$", lines, re.MULTILINE)

    of_version = [name for name, _ in listed("--spec-version", version)]
    return of_version + [name for name, source in listed() if source == "extension"]


def run(suite: list[str], scenario: str, version: str, backend: str, deadline: float) -> Result:
    seconds = min(SCENARIO_SECONDS, deadline - time.monotonic())
    if seconds <= 0:
        return Result(scenario, [], {"exit": f"not begun after {TOTAL_SECONDS:.0f} s"})
    client = shlex.join([sys.executable, "-m", "tests.conformance.client", backend])
    with tempfile.TemporaryDirectory() as directory:
        arguments = ["client", "--command", client, "--scenario", scenario]
        arguments += ["--spec-version", version, "--output-dir", directory]
        # An extension belongs to no version; without this it would not be run for one.
        arguments.append("--force")
        # A group of its own: the suite does not end its client when it is ended itself.
        process = subprocess.Popen(
            [*suite, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=ROOT,
            start_new_session=True,
        )
        try:
            said, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            return Result(scenario, [], {"exit": f"not ended after {seconds:.0f} s"})
        found = list(Path(directory).glob("**/checks.json"))
        checks: list[dict[str, Any]] = json.loads(found[0].read_text()) if found else []
        trace = "".join(path.read_text() for path in Path(directory).glob("**/stderr.txt"))
    judged = [check for check in checks if check["status"] in ("SUCCESS", "FAILURE", "WARNING")]
    failed = {
        check["id"]: check.get("errorMessage") or check["description"]
        for check in judged
        if check["status"] != "SUCCESS"
    }
    if not failed and (process.returncode or not judged):
        failed["exit"] = (trace or said)[-2000:]
    return Result(scenario, judged, failed)


def expected(version: str) -> dict[tuple[str, str], str]:
    """The reason for each failure that is known, by scenario and check."""
    entries = tomllib.loads((HERE / "expected_failures.toml").read_text()).get("failure", [])
    return {
        (entry["scenario"], check): entry["reason"]
        for entry in entries
        if version in entry.get("versions", VERSIONS)
        for check in entry["checks"]
    }


def report(version: str, backend: str, results: list[Result], chosen: set[str]) -> bool:
    """Print what a run came to; whether it came to what was expected."""
    known = {key: reason for key, reason in expected(version).items() if key[0] in chosen}
    failures = {(result.scenario, check): why for result in results for check, why in result.failed.items()}
    checks = sum(len(result.checks) for result in results)
    passed = sum(check["status"] == "SUCCESS" for result in results for check in result.checks)
    clean = sum(not result.failed for result in results)
    say(f"{version} on {backend}: {passed} of {checks} checks, {clean} of {len(results)} scenarios")
    for (scenario, check), why in failures.items():
        if (scenario, check) in known:
            say(f"  expected: {scenario} {check}: {known[scenario, check]}")
        else:
            say(f"  FAILED: {scenario} {check}: {why}")
    for scenario, check in sorted(known.keys() - failures.keys()):
        say(f"  PASSED, though expected to fail: {scenario} {check}")
    return known.keys() == failures.keys()


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main(directory: Path, names: list[str]) -> int:
    suite = command(directory, PACKAGE)
    deadline = time.monotonic() + TOTAL_SECONDS
    good = True
    with ThreadPoolExecutor(os.cpu_count()) as workers:
        for version in VERSIONS:
            chosen = [name for name in scenarios(suite, version) if not names or name in names]
            for backend in BACKENDS:
                began = [workers.submit(run, suite, name, version, backend, deadline) for name in chosen]
                good &= report(version, backend, [each.result() for each in began], set(chosen))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
