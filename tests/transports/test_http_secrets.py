"""What a failed exchange carries away with it: never the user's secrets."""

from __future__ import annotations

import pickle
from types import ModuleType

import anyio
import httpx
import httpx2
import pytest

from anyio_mcp import Client, ConnectError, RequestFailedError
from anyio_mcp.transports import StreamableHttpTransport
from anyio_mcp.transports._boundary import clear_frames
from tests.faults.http_server import Handler, Talk, close, fault_server, garbage, status_500
from tests.leaks import locals_behind
from tests.servers import free_port

pytestmark = pytest.mark.anyio

SECRET = "s3cret"


@pytest.mark.parametrize("classic", [False, True])
async def test_no_secret_is_in_the_error_of_a_refused_connection_nor_in_its_pickle(classic: bool) -> None:
    url = f"http://user:{SECRET}@127.0.0.1:{free_port()}/mcp?key={SECRET}"
    async with httpx.AsyncClient() as client:
        transport = StreamableHttpTransport(
            url, headers={"x-key": SECRET}, auth=SECRET, http_client=client if classic else None
        )
        with anyio.fail_after(5), pytest.raises(ConnectError) as caught:
            async with Client(transport):
                pytest.fail("entered")
    failure = caught.value.cause
    assert isinstance(failure, RequestFailedError)
    assert type(failure.cause).__name__ == "ConnectError"
    assert SECRET not in repr(failure.cause) + str(caught.value) + repr(vars(failure.cause))
    assert SECRET.encode() not in pickle.dumps(caught.value)


async def test_no_argument_of_a_call_is_in_the_pickle_of_its_failure() -> None:
    with anyio.fail_after(5):
        async with fault_server(close) as server:
            client = Client(server.url, mode="2026-07-28", auth=SECRET)
            async with client:
                with pytest.raises(RequestFailedError) as caught:
                    await client.call_tool("add", {"password": SECRET})
    again = pickle.loads(pickle.dumps(caught.value))
    assert again.reason == "transport"
    assert type(again.cause) is type(caught.value.cause)
    assert SECRET.encode() not in pickle.dumps(caught.value)


async def _redirecting(talk: Talk) -> None:
    await talk.reply(302, b"", None, {"location": f"http://other.example/?q={SECRET}"})


@pytest.mark.parametrize("handler", [_redirecting, close, garbage, status_500])
async def test_no_secret_is_in_the_local_variables_behind_the_error_of_an_exchange(handler: Handler) -> None:
    async with fault_server(handler) as server:
        url = server.url.replace("//", f"//user:{SECRET}@") + f"?key={SECRET}"
        client = Client(url, mode="2026-07-28", auth=SECRET)
        with anyio.fail_after(5):
            async with client:
                with pytest.raises((RequestFailedError, httpx2.HTTPStatusError)) as caught:
                    await client.list_tools()
    assert SECRET not in locals_behind(caught.value)


_SHARING = """
async def work(error, waiting):
    secret = "s3cret"
    try:
        await broken(error)
    except ValueError:
        await waiting()
        raise

async def broken(error):
    raise error
"""


async def test_an_error_that_several_tasks_share_is_cleared_of_none_of_their_frames_that_still_wait() -> None:
    module = ModuleType("httpcore_of_a_user")
    exec(_SHARING, vars(module))
    error, ended, waits = ValueError("the connection broke"), 0, anyio.Event()

    async def task() -> None:
        nonlocal ended
        with pytest.raises(ValueError, match="the connection broke"):
            await module.work(error, waits.wait)
        ended += 1

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(task)
            tasks.start_soon(task)
            await anyio.wait_all_tasks_blocked()
            clear_frames(error)
            assert ended == 0
            waits.set()
    assert ended == 2
    clear_frames(error)
    assert SECRET not in locals_behind(error)
