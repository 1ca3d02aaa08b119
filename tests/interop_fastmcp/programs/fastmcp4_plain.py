"""A FastMCP 4 server without background tasks. Needs `fastmcp>=4.1,<5`."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from datetime import date
from typing import Any

from fastmcp import Context, FastMCP
from fastmcp.exceptions import ToolError
from mcp_types import ElicitRequest, ElicitRequestFormParams, InputRequiredResult

FORM = {"type": "object", "properties": {"value": {"type": "string"}}, "required": ["value"]}

# Two to a page, so that no listing fits on one.
mcp = FastMCP("fastmcp 4 plain", instructions="Be kind.", list_page_size=2)


@dataclass
class Forecast:
    day: date
    degrees: float
    words: list[str]


@mcp.tool
def forecast(day: date) -> Forecast:
    return Forecast(day, 21.5, ["dry", "calm"])


@mcp.tool
def days(count: int) -> list[date]:
    return [date(2026, 1, 1 + index) for index in range(count)]


@mcp.tool
def broken() -> str:
    raise ToolError("out of coffee")


@mcp.tool
async def steps(to: int, ctx: Context) -> int:
    for step in range(to):
        await ctx.report_progress(step + 1, to, f"step {step + 1}")
    return to


@mcp.tool
async def talk(ctx: Context) -> str:
    await ctx.info("talking")
    return "talked"


@mcp.tool
async def greet(ctx: Context) -> str:
    """Asks by a request of the server, as it could be done before 2026-07-28."""
    answer = await ctx.elicit("Your name?", response_type=str)
    return f"hello {answer.data}" if answer.action == "accept" else f"hello, {answer.action}"


@mcp.tool
async def greet_in_rounds(ctx: Context) -> Any:
    """Asks by a result, as it is done since."""
    if not ctx.input_responses:
        question = ElicitRequest(params=ElicitRequestFormParams(message="Your name?", requested_schema=FORM))
        return InputRequiredResult(input_requests={"name": question}, request_state="asked  once")
    answer = ctx.input_responses["name"]
    if ctx.request_state != "asked  once":
        raise ToolError("the state has changed")
    return f"hello {answer.content['value']}" if answer.action == "accept" else f"hello, {answer.action}"


@mcp.resource("memo://one")
def memo() -> str:
    return "a memo"


@mcp.resource("memo://about/{topic}")
def about(topic: str) -> str:
    return f"a memo about {topic}"


@mcp.prompt
def poem(topic: str) -> str:
    return f"Write a poem about {topic}"


if __name__ == "__main__":
    if sys.argv[1] == "stdio":
        mcp.run(show_banner=False)
    else:
        mcp.run("http", host="127.0.0.1", port=int(sys.argv[1]), show_banner=False)
