"""The client under test of the official conformance suite: one program for all of its scenarios.

Run by the suite as `python -m tests.conformance.client BACKEND URL`, with the scenario's name and its
data in the environment. What the suite judges is on the wire; a scenario passes without this program
looking at an answer, so each function here only does what its scenario needs a client to do. Uses
nothing of this library but its public names.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import httpx2
from mcp import MCPError
from mcp.client.auth import OAuthFlowError

from anyio_mcp import Client, ElicitResult, MCPClientError
from tests.conformance.authorization import provider_for

MODERN = "2026-07-28"
VERSION = os.environ.get("MCP_CONFORMANCE_PROTOCOL_VERSION", MODERN)
CONTEXT: dict[str, Any] = json.loads(os.environ.get("MCP_CONFORMANCE_CONTEXT") or "{}")
MODE = "auto" if VERSION == MODERN else "legacy"

REFUSALS = (MCPClientError, MCPError, OAuthFlowError, httpx2.HTTPStatusError)
"""What a call may end with where the scenario is about being refused."""

Scenario = Callable[[str], Awaitable[None]]


async def lists(url: str) -> None:
    async with Client(url, mode=MODE) as client:
        await client.list_tools()


async def adds(url: str) -> None:
    async with Client(url, mode=MODE) as client:
        await client.list_tools()
        await client.call_tool("add_numbers", {"a": 5, "b": 3})


async def reconnects(url: str) -> None:
    async with Client(url, mode=MODE) as client:
        await client.call_tool("test_reconnection")


def accept_defaults(message: str, response_type: Any, params: Any, context: Any) -> ElicitResult:
    """Agree without filling anything in: what the schema says is the default is what is sent."""
    return ElicitResult(action="accept")


async def accepts_defaults(url: str) -> None:
    async with Client(url, mode=MODE, elicitation_handler=accept_defaults) as client:
        await client.call_tool("test_client_elicitation_defaults")


async def declares_everything(url: str) -> None:
    """Every capability of a client, so that each request has to bear all of them."""

    async def sample(messages: Any, params: Any, context: Any) -> str:
        return "sampled"

    async with Client(
        url,
        mode=MODE,
        roots=[Path("/srv/conformance")],
        sampling_handler=sample,
        elicitation_handler=accept_defaults,
    ) as client:
        await client.list_tools()
        await client.call_tool("add_numbers", {"a": 5, "b": 3})


async def answers_rounds(url: str) -> None:
    async def confirm(message: str, response_type: Any, params: Any, context: Any) -> dict[str, bool]:
        return {"confirmed": True}

    async with Client(url, mode=MODE, elicitation_handler=confirm) as client:
        for tool in ("echo_state", "unrelated", "no_state", "no_result_type"):
            await client.call_tool(f"test_mrtr_{tool}")


async def calls_what_it_is_told(url: str) -> None:
    """The calls that the scenario names, of those tools whose headers are well-formed."""
    async with Client(url, mode=MODE) as client:
        known = {tool.name for tool in await client.list_tools()}
        for call in CONTEXT["toolCalls"]:
            if call["name"] in known:
                await client.call_tool(call["name"], call.get("arguments"))


async def calls_all_it_sees(url: str) -> None:
    samples = {"string": "x", "integer": 0, "number": 0, "boolean": False, "object": {}, "array": []}
    async with Client(url, mode=MODE) as client:
        for tool in await client.list_tools():
            properties = tool.input_schema.get("properties", {})
            required = tool.input_schema.get("required", [])
            await client.call_tool(tool.name, {name: samples[properties[name]["type"]] for name in required})


async def echoes_a_schema(url: str) -> None:
    async with Client(url, mode=MODE) as client:
        schemas = {tool.name: tool.input_schema for tool in await client.list_tools()}
        await client.call_tool("json_schema_echo", {"schema": schemas["json_schema_2020_12_tool"]})


async def is_authorized(url: str) -> None:
    auth = await provider_for(os.environ["MCP_CONFORMANCE_SCENARIO"], url, CONTEXT)
    async with Client(url, mode=MODE, auth=auth, elicitation_handler=accept_defaults) as client:
        for tool in (await client.list_tools())[:1]:
            try:
                await client.call_tool(tool.name)
            except REFUSALS as refusal:
                sys.stderr.write(f"{tool.name} was refused: {refusal}\n")


SCENARIOS: dict[str, Scenario] = {
    "initialize": lists,
    "tools_call": adds,
    "sse-retry": reconnects,
    "elicitation-sep1034-client-defaults": accepts_defaults,
    "request-metadata": declares_everything,
    "sep-2322-client-request-state": answers_rounds,
    "http-standard-headers": adds,
    "http-custom-headers": calls_what_it_is_told,
    "http-invalid-tool-headers": calls_all_it_sees,
    "json-schema-ref-no-deref": lists,
    "json-schema-2020-12-preservation": echoes_a_schema,
}


def main() -> None:
    backend, url = sys.argv[1:]
    scenario = os.environ["MCP_CONFORMANCE_SCENARIO"]
    act = is_authorized if scenario.startswith("auth/") else SCENARIOS[scenario]
    anyio.run(act, url, backend=backend)


if __name__ == "__main__":
    main()
