"""The tools of a session: one listing for everybody who needs it, and no listing that never ends."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from mcp import MCPError
from mcp.types import ListToolsResult, PaginatedRequestParams, Tool

from anyio_mcp._session.catalog import MAX_PAGES, ToolCatalog, all_pages, list_all_tools
from anyio_mcp._session.watchdog import CallDeadline, SessionFailure
from anyio_mcp.errors import DeadlineExceededError, RequestFailedError, SessionLostError

pytestmark = pytest.mark.anyio

Answer = Callable[[str | None], Awaitable[ListToolsResult]]


def tool(name: str) -> Tool:
    return Tool(name=name, input_schema={"type": "object"})


def page(*names: str, then: str | None = None) -> ListToolsResult:
    return ListToolsResult(tools=[tool(name) for name in names], next_cursor=then)


def deadline(seconds: float = math.inf) -> CallDeadline:
    return CallDeadline(seconds, seconds)


class Session:
    """A session that can list tools; `asked` are the cursors it was asked for."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.asked: list[str | None] = []

    async def list_tools(self, params: PaginatedRequestParams | None) -> ListToolsResult:
        cursor = None if params is None else params.cursor
        self.asked.append(cursor)
        await anyio.lowlevel.checkpoint()
        return await self.answer(cursor)


def catalog_of(session: Any, failure: SessionFailure | None = None) -> ToolCatalog:
    return ToolCatalog(session.list_tools, SessionFailure() if failure is None else failure)


async def two_pages(cursor: str | None) -> ListToolsResult:
    return page("add", then="2") if cursor is None else page("mul")


# --- one listing for everybody --------------------------------------------------------------------


async def test_a_tool_is_found_on_any_page_and_the_listing_is_kept() -> None:
    session = Session(two_pages)
    catalog = catalog_of(session)
    assert catalog.known("mul") is None
    assert await catalog.find("mul", deadline()) == tool("mul")
    assert await catalog.find("add", deadline()) == tool("add")
    assert await catalog.find("nope", deadline()) is None
    assert catalog.known("mul") == tool("mul")
    assert session.asked == [None, "2"]


async def test_a_hundred_who_ask_at_once_share_one_listing() -> None:
    open_gate = anyio.Event()

    async def when_open(cursor: str | None) -> ListToolsResult:
        await open_gate.wait()
        return await two_pages(cursor)

    session = Session(when_open)
    failure = SessionFailure()
    catalog = catalog_of(session, failure)
    found: list[Tool | None] = []

    async def ask(name: str) -> None:
        found.append(await catalog.find(name, deadline()))

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tg:
            for number in range(100):
                tg.start_soon(ask, "add" if number % 2 else "mul")
            await anyio.wait_all_tasks_blocked()
            assert session.asked == [None], "one asks, the others wait for it"
            assert len(failure) == 99
            open_gate.set()
    assert session.asked == [None, "2"]
    assert found.count(tool("add")) == found.count(tool("mul")) == 50
    assert len(failure) == 0


async def test_when_the_one_who_lists_is_cancelled_the_next_takes_over() -> None:
    first_asked = anyio.Event()

    async def hangs_once(cursor: str | None) -> ListToolsResult:
        if not first_asked.is_set():
            first_asked.set()
            await anyio.sleep_forever()
        return page("add")

    session = Session(hangs_once)
    failure = SessionFailure()
    catalog = catalog_of(session, failure)
    found: list[Tool | None] = []

    async def ask() -> None:
        found.append(await catalog.find("add", deadline()))

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tg:
            leader = anyio.CancelScope()

            async def lead() -> None:
                with leader:
                    await ask()

            tg.start_soon(lead)
            await first_asked.wait()
            for _ in range(10):
                tg.start_soon(ask)
            await anyio.wait_all_tasks_blocked()
            leader.cancel()
    assert leader.cancelled_caught
    assert found == [tool("add")] * 10
    assert session.asked == [None, None]
    assert len(failure) == 0


async def test_what_stops_a_listing_is_raised_to_who_made_it_and_the_next_tries_again() -> None:
    async def fails_once(cursor: str | None) -> ListToolsResult:
        if len(session.asked) == 1:
            raise RequestFailedError("reset", reason="transport")
        return page("add")

    session = Session(fails_once)
    catalog = catalog_of(session)
    with pytest.raises(RequestFailedError, match="reset"):
        await catalog.find("add", deadline())
    assert await catalog.find("add", deadline()) == tool("add")


async def test_a_server_that_refuses_to_list_is_not_asked_again() -> None:
    async def refuses(cursor: str | None) -> ListToolsResult:
        raise MCPError(-32601, "Method not found")

    session = Session(refuses)
    catalog = catalog_of(session)
    for _ in range(3):
        assert await catalog.find("add", deadline()) is None
    assert session.asked == [None]


async def test_waiting_for_the_listing_of_another_is_bounded_by_ones_own_deadline() -> None:
    async def hangs(cursor: str | None) -> ListToolsResult:
        await anyio.sleep_forever()
        raise AssertionError

    catalog = catalog_of(Session(hangs))
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tg:
            tg.start_soon(catalog.find, "add", deadline())
            await anyio.wait_all_tasks_blocked()
            with pytest.raises(DeadlineExceededError, match="waiting for the list of tools"):
                await catalog.find("add", deadline(0.01))
            tg.cancel_scope.cancel()


async def test_who_waits_for_the_listing_of_another_is_told_when_the_session_fails() -> None:
    async def hangs(cursor: str | None) -> ListToolsResult:
        await anyio.sleep_forever()
        raise AssertionError

    failure = SessionFailure()
    catalog = catalog_of(Session(hangs), failure)
    told: list[str] = []

    async def ask() -> None:
        with pytest.raises(SessionLostError, match="gone"):
            await catalog.find("add", deadline())
        told.append("gone")

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tg:
            tg.start_soon(catalog.find, "add", deadline())
            await anyio.wait_all_tasks_blocked()
            async with anyio.create_task_group() as others:
                for _ in range(10):
                    others.start_soon(ask)
                await anyio.wait_all_tasks_blocked()
                assert len(failure) == 10
                failure.fire(SessionLostError("gone", reason="eof"))
            tg.cancel_scope.cancel()
    assert told == ["gone"] * 10


async def test_after_a_change_the_tools_are_listed_anew() -> None:
    async def grows(cursor: str | None) -> ListToolsResult:
        return page(*["add", "mul"][: len(session.asked)])

    session = Session(grows)
    catalog = catalog_of(session)
    assert await catalog.find("mul", deadline()) is None
    catalog.forget()
    assert catalog.known("add") is None
    assert await catalog.find("mul", deadline()) == tool("mul")
    assert session.asked == [None, None]


async def test_a_change_also_forgets_that_the_server_refused() -> None:
    async def refuses_once(cursor: str | None) -> ListToolsResult:
        if len(session.asked) == 1:
            raise MCPError(-32601, "not yet")
        return page("add")

    session = Session(refuses_once)
    catalog = catalog_of(session)
    assert await catalog.find("add", deadline()) is None
    catalog.forget()
    assert await catalog.find("add", deadline()) == tool("add")


async def test_a_listing_made_anyway_saves_another() -> None:
    session = Session(two_pages)
    catalog = catalog_of(session)
    catalog.learn([tool("div")])
    assert catalog.known("div") == tool("div")
    assert await catalog.find("add", deadline()) is None
    assert session.asked == []


async def test_an_empty_listing_is_one_too() -> None:
    async def none(cursor: str | None) -> ListToolsResult:
        return page()

    session = Session(none)
    catalog = catalog_of(session)
    assert await catalog.find("add", deadline()) is None
    assert await catalog.find("add", deadline()) is None
    assert session.asked == [None]


# --- listings of several pages --------------------------------------------------------------------


async def test_all_pages_are_fetched_with_the_cursors_the_server_gave() -> None:
    session: Any = Session(two_pages)
    tools = await list_all_tools(session.list_tools)
    assert [each.name for each in tools] == ["add", "mul"]
    assert session.asked == [None, "2"]


async def test_an_empty_page_in_the_middle_does_not_end_a_listing() -> None:
    async def answer(cursor: str | None) -> ListToolsResult:
        return {None: page("add", then="2"), "2": page(then="3"), "3": page("mul")}[cursor]

    session: Any = Session(answer)
    assert [each.name for each in await list_all_tools(session.list_tools)] == ["add", "mul"]


async def test_an_empty_cursor_is_a_cursor() -> None:
    async def answer(cursor: str | None) -> ListToolsResult:
        return page("add", then="") if cursor is None else page("mul")

    session: Any = Session(answer)
    assert [each.name for each in await list_all_tools(session.list_tools)] == ["add", "mul"]
    assert session.asked == [None, ""]


@pytest.mark.parametrize("period", [1, 2, 7])
async def test_a_listing_that_repeats_a_cursor_is_a_violation(period: int) -> None:
    async def round_and_round(cursor: str | None) -> ListToolsResult:
        return page(then=str((int(cursor or -1) + 1) % period))

    session: Any = Session(round_and_round)
    with anyio.fail_after(5), pytest.raises(RequestFailedError, match="repeats a cursor") as caught:
        await list_all_tools(session.list_tools)
    assert caught.value.reason == "violation"
    assert len(session.asked) == period + 1


async def test_a_listing_that_never_ends_is_a_violation_after_so_many_pages() -> None:
    async def endless(cursor: str | None) -> ListToolsResult:
        return page(then=str(int(cursor or 0) + 1))

    session: Any = Session(endless)
    with (
        anyio.fail_after(30),
        pytest.raises(RequestFailedError, match=f"more than {MAX_PAGES} pages") as caught,
    ):
        await list_all_tools(session.list_tools)
    assert caught.value.reason == "violation"
    assert len(session.asked) == MAX_PAGES


async def test_the_last_page_allowed_may_be_the_last_page() -> None:
    async def answer(cursor: str | None) -> ListToolsResult:
        number = int(cursor or 1)
        return page(str(number), then=str(number + 1) if number < 3 else None)

    session: Any = Session(answer)
    assert len(await list_all_tools(session.list_tools, max_pages=3)) == 3
    with pytest.raises(RequestFailedError, match="more than 2 pages"):
        await list_all_tools(session.list_tools, max_pages=2)


async def test_an_error_on_a_later_page_is_the_error_of_the_listing() -> None:
    async def fetch(params: PaginatedRequestParams | None) -> ListToolsResult:
        if params is None:
            return page("add", then="2")
        raise MCPError(-32602, "what cursor?")

    with pytest.raises(MCPError, match="what cursor"):
        await all_pages(fetch)
