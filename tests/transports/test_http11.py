"""Our HTTP/1.1 connection on streams in memory: what it reads, what it refuses, when it is used again.

httpcore, on the same bytes, is the reference: ours gives the same response or refuses it, and takes nothing
that the reference refuses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import anyio
import httpcore2
import httpx2
import pytest
from anyio.abc import ByteStream
from hypothesis import given
from hypothesis import strategies as st

from anyio_mcp.transports._http11 import MAX_HEAD_BYTES, MAX_INFORMATIONAL, WRITE_BYTES, Http11Connection

HEADERS = [(b"Host", b"example.org"), (b"Content-Length", b"2")]


@dataclass
class Wire(ByteStream):
    """A peer that says `pieces`, one for each read, then ends the stream; and takes `takes` bytes."""

    pieces: list[bytes]
    takes: float = float("inf")
    broken: bool = False
    written: bytearray = field(default_factory=bytearray)
    closed: bool = False
    stalled: anyio.Event | None = None

    async def receive(self, max_bytes: int = 65536) -> bytes:
        await anyio.lowlevel.checkpoint()
        if self.pieces:
            return self.pieces.pop(0)
        if self.broken:
            raise anyio.BrokenResourceError from ConnectionResetError("reset")
        raise anyio.EndOfStream

    async def send(self, item: bytes) -> None:
        await anyio.lowlevel.checkpoint()
        if len(self.written) + len(item) > self.takes:
            if self.stalled is not None:
                await self.stalled.wait()
            raise anyio.BrokenResourceError from BrokenPipeError("pipe")
        self.written += item

    async def send_eof(self) -> None:
        raise NotImplementedError

    async def aclose(self) -> None:
        self.closed = True


Outcome = tuple[int, list[tuple[bytes, bytes]], bytes] | str


async def ours(pieces: Sequence[bytes]) -> Outcome:
    connection = Http11Connection(Wire([piece for piece in pieces if piece]), "origin")
    try:
        head = await connection.request(b"POST", b"/mcp", HEADERS, b"{}")
        body = bytearray()
        while (piece := await connection.read()) is not None:
            body += piece
    except httpx2.TransportError as error:
        return type(error).__name__
    return head.status, [(name.lower(), value) for name, value in head.headers], bytes(body)


async def reference(pieces: Sequence[bytes]) -> Outcome:
    backend = httpcore2.AsyncMockBackend([piece for piece in pieces if piece])
    async with httpcore2.AsyncConnectionPool(network_backend=backend) as pool:
        try:
            response = await pool.request("POST", "http://example.org/mcp", headers=HEADERS, content=b"{}")
        except (httpcore2.ProtocolError, httpcore2.NetworkError, httpcore2.TimeoutException) as error:
            return type(error).__name__
    return response.status, [(name.lower(), value) for name, value in response.headers], response.content


OK = b"HTTP/1.1 200 OK\r\n"
CORPUS = [
    OK + b"Content-Length: 2\r\n\r\nhi",
    OK + b"content-length: 0\r\n\r\n",
    OK + b"\r\nuntil the end",
    OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
    OK + b"Transfer-Encoding: chunked\r\n\r\n2;name=value\r\nhi\r\n0\r\nTrailer: x\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
    + OK
    + b"Content-Length: 2\r\n\r\nhi",
    b"HTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.1 404 Not Found\r\nContent-Length: 3\r\n\r\nno!",
    b"HTTP/1.0 200 OK\r\n\r\nold",
    # What a smuggler or a careless server sends.
    OK + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nhi!",
    OK + b"Content-Length: 2, 2\r\n\r\nhi",
    OK + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
    OK + b"Content-Length: +2\r\n\r\nhi",
    OK + b"Content-Length: 99999999999999999999999999\r\n\r\nhi",
    OK + b"Content-Length : 2\r\n\r\nhi",
    OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
    OK + b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffffffffffff\r\nhi",
    OK + b"Transfer-Encoding: chunked\r\n\r\n-2\r\nhi\r\n0\r\n\r\n",
    OK + b"Transfer-Encoding: chunked\r\n\r\n0x2\r\nhi\r\n0\r\n\r\n",
    OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhi!\r\n0\r\n\r\n",
    OK + b"X-Folded: one\r\n two\r\nContent-Length: 2\r\n\r\nhi",
    b"HTTP/1.1 200 OK\nContent-Length: 2\n\nhi",
    OK + b"Content-Length: 2\r\n\r\nhi" + OK + b"Content-Length: 6\r\n\r\nforged",
    OK + b"X: caf\xc3\xa9 \xff\r\nContent-Length: 2\r\n\r\nhi",
    OK + b"X: a\x00b\r\nContent-Length: 2\r\n\r\nhi",
    b"HTTP/2 200\r\n\r\n",
    b"SSH-2.0-OpenSSH_9.2\r\n",
    b"HTTP/1.1 OK\r\n\r\n",
    b"HTTP/1.1 99 Odd\r\n\r\n",
    b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nhi",
    OK + b"Content-Length: 20\r\n\r\ntoo short",
    OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n",
    OK + b"Content-Le",
    b"",
]


async def judge(*cuts: Sequence[bytes]) -> None:
    for pieces in cuts:
        mine, theirs = await ours(pieces), await reference(pieces)
        if isinstance(theirs, str):
            assert isinstance(mine, str), "a response that the reference refuses was taken"
        elif not isinstance(mine, str):
            assert mine == theirs


@pytest.mark.anyio
@pytest.mark.parametrize("data", CORPUS)
async def test_a_response_cut_in_two_anywhere_is_read_like_the_reference_reads_it(data: bytes) -> None:
    await judge(*([data[:cut], data[cut:]] for cut in range(len(data) + 1)))
    assert await ours([bytes([byte]) for byte in data]) == await ours([data])


@given(st.data())
def test_mutated_responses_are_read_like_the_reference_reads_them_or_refused(data: st.DataObject) -> None:
    response = bytearray(data.draw(st.sampled_from(CORPUS)))
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, len(response)))
        match data.draw(st.sampled_from(["insert", "delete", "replace", "double"])):
            case "insert":
                response[position:position] = data.draw(
                    st.sampled_from([b"\r", b"\n", b"\r\n", b" ", b":", b"0", b"\x00", b"\xff", b",", b"\t"])
                )
            case "delete":
                del response[position : position + data.draw(st.integers(1, 3))]
            case "replace":
                response[position : position + 1] = bytes([data.draw(st.integers(0, 255))])
            case _:
                response[position:position] = response[position : position + 20]
    cut = data.draw(st.integers(0, len(response)))
    anyio.run(judge, [bytes(response[:cut]), bytes(response[cut:])])


@pytest.mark.anyio
@pytest.mark.parametrize(
    "flood",
    [
        pytest.param([OK, *[b"X-Line: %d\r\n" % number for number in range(20_000)]], id="headers"),
        pytest.param([OK + b"X: ", *[b"y" * 1000] * 200], id="one header"),
        pytest.param([OK + b"Transfer-Encoding: chunked\r\n\r\n1;", *[b"y" * 1000] * 200], id="chunk line"),
        pytest.param(
            [OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", *[b"T: %d\r\n" % n for n in range(20_000)]],
            id="trailers",
        ),
        pytest.param([b"HTTP/1.1 100 Continue\r\n\r\n"] * 10_000, id="1xx"),
        pytest.param([b"HTTP/1.1 " + b"2" * 1000] * 200, id="status line"),
    ],
)
async def test_what_surrounds_a_body_is_bounded(flood: list[bytes]) -> None:
    wire = Wire(list(flood))
    connection = Http11Connection(wire, "origin")
    with pytest.raises(httpx2.RemoteProtocolError):
        await connection.request(b"GET", b"/", HEADERS[:1], b"")
        while await connection.read() is not None:
            pass
    taken = sum(map(len, flood)) - sum(map(len, wire.pieces))
    assert taken <= MAX_HEAD_BYTES + 2_000 or len(flood) - len(wire.pieces) <= MAX_INFORMATIONAL + 1


@pytest.mark.anyio
async def test_a_connection_is_used_again_only_after_a_whole_response_and_nothing_behind_it() -> None:
    async def reusable(data: bytes, *, reads: int = 10, takes: float = float("inf")) -> bool:
        connection = Http11Connection(Wire([data], takes=takes), "origin")
        await connection.request(b"POST", b"/", HEADERS, b"{}")
        for _ in range(reads):
            if await connection.read() is None:
                break
        return connection.is_reusable

    whole = OK + b"Content-Length: 2\r\n\r\nhi"
    assert await reusable(whole)
    assert not await reusable(whole, reads=0)
    assert not await reusable(whole + b"HTTP/1.1 200 OK\r\n\r\nforged")
    assert not await reusable(OK + b"Connection: close\r\nContent-Length: 2\r\n\r\nhi")
    assert not await reusable(b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi")
    assert not await reusable(whole, takes=10)


@pytest.mark.anyio
async def test_requests_one_after_another_are_written_as_they_are() -> None:
    wire = Wire([OK + b"Content-Length: 2\r\n\r\nhi", OK + b"Content-Length: 3\r\n\r\nyou"])
    connection = Http11Connection(wire, "origin")
    for _ in range(2):
        await connection.request(b"POST", b"/mcp?x=1", HEADERS, b"{}")
        while await connection.read() is not None:
            pass
        connection.start_next()
    request = b"POST /mcp?x=1 HTTP/1.1\r\nHost: example.org\r\nContent-Length: 2\r\n\r\n{}"
    assert bytes(wire.written) == request * 2


LARGE = b"x" * (10 * WRITE_BYTES)
LARGE_HEADERS = [(b"Host", b"example.org"), (b"Content-Length", b"%d" % len(LARGE))]


@pytest.mark.anyio
@pytest.mark.parametrize("closes", [True, False], ids=["stops reading", "reads no further"])
async def test_a_refusal_that_comes_before_the_request_is_written_is_the_response(closes: bool) -> None:
    refusal = b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno"
    wire = Wire([refusal], takes=2 * WRITE_BYTES, stalled=None if closes else anyio.Event())
    connection = Http11Connection(wire, "origin")
    with anyio.fail_after(5):
        head = await connection.request(b"POST", b"/", LARGE_HEADERS, LARGE)
        assert (head.status, await connection.read()) == (413, b"no")
        assert await connection.read() is None
    assert not connection.is_reusable


@pytest.mark.anyio
async def test_an_early_answer_that_is_no_refusal_lets_the_request_be_written() -> None:
    wire = Wire([b"HTTP/1.1 100 Continue\r\n\r\n" + OK + b"Content-Length: 2\r\n\r\nhi"])
    connection = Http11Connection(wire, "origin")
    head = await connection.request(b"POST", b"/", LARGE_HEADERS, LARGE)
    assert head.status == 200
    assert wire.written.endswith(LARGE)
    assert [await connection.read(), await connection.read()] == [b"hi", None]
    assert connection.is_reusable


@pytest.mark.anyio
@pytest.mark.parametrize("broken", [True, False], ids=["reset", "closed"])
@pytest.mark.parametrize("content", [b"{}", LARGE], ids=["small", "large"])
async def test_a_connection_that_breaks_says_so(broken: bool, content: bytes) -> None:
    headers = HEADERS if content == b"{}" else LARGE_HEADERS
    for takes in (0, float("inf")):
        connection = Http11Connection(Wire([], takes=takes, broken=broken), "origin")
        with (
            anyio.fail_after(5),
            pytest.raises(httpx2.TransportError, match="reset" if broken else "without"),
        ):
            await connection.request(b"POST", b"/", headers, content)


@pytest.mark.anyio
async def test_what_no_request_may_hold_is_refused_before_it_is_written() -> None:
    wire = Wire([])
    with pytest.raises(httpx2.LocalProtocolError):
        await Http11Connection(wire, "origin").request(b"GET", b"/ /", [(b"Host", b"a\r\nb")], b"")
    assert not wire.written
