"""The command line and a server that a configuration file describes."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from anyio_mcp.cli.app import app

SERVER = """
import os
from mcp.server.mcpserver import MCPServer

server = MCPServer("configured")

@server.tool()
def greeting() -> str:
    return os.environ["GREETING"]

server.run("stdio")
"""


@pytest.fixture
def entry(tmp_path: Path) -> dict[str, Any]:
    script = tmp_path / "server.py"
    script.write_text(SERVER)
    return {"command": sys.executable, "args": [str(script)], "env": {"GREETING": "well met"}}


def run(config: Path, content: str, *words: str) -> Any:
    config.write_text(content)
    return CliRunner().invoke(app, [words[0], str(config), *words[1:]])


def test_a_server_may_be_one_of_a_configuration_file(tmp_path: Path, entry: dict[str, Any]) -> None:
    content = json.dumps({"mcpServers": {"one": entry}})
    result = run(tmp_path / "a config.json", content, "call", "greeting")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.strip() == "well met"


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"mcpServers": {"a": {"command": "x"}, "b": {"command": "x"}}}']
)
def test_a_file_that_names_no_one_server_is_a_usage_error(tmp_path: Path, content: str) -> None:
    result = run(tmp_path / "config.json", content, "list")
    assert result.exit_code == 2
    assert result.stderr.startswith("anyio-mcp: UsageError: ")
    assert len(result.stderr.splitlines()) == 1


def test_a_configuration_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["list", str(tmp_path / "none.json")])
    assert result.exit_code == 2
    assert "no such file" in result.stderr
