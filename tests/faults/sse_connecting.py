"""HTTP+SSE, connecting: the stream, the endpoint it names, and where redirects lead."""

from __future__ import annotations

from typing import Final

from anyio_mcp import SessionLostError, SSETransport
from anyio_mcp.transports.base import INBOX_SIZE
from tests.faults.http_answers import (
    LIMIT,
    SILENCES,
    SMALL,
)
from tests.faults.http_connecting import Absent, at_url
from tests.faults.http_notices import (
    REDIRECTS,
)
from tests.faults.http_outcomes import (
    CLOSE,
    CONNECT,
    TOO_SLOW,
    Cells,
    connecting,
    failed,
    not_connected,
)
from tests.faults.http_server import (
    Handler,
    Received,
    Talk,
    close,
    garbage,
    never,
    no_events,
    reset,
)
from tests.faults.http_stage import (
    HANDSHAKE,
    NOTIFICATIONS,
    notify,
)
from tests.faults.http_statuses import BODIES, STATUSES, of_status, status
from tests.faults.http_streams import (
    MESSAGE,
    breaks,
    end_events,
    for_ever,
)
from tests.faults.matrix import Outcome
from tests.faults.sse_stage import (
    STREAM,
    WHOLE,
    SseScene,
    begins_with,
    endpoint,
    serve,
)

CELLS: Final = Cells("HTTP+SSE", eras=("legacy",))


CELLS.add(
    "connection refused",
    "connecting",
    not_connected("transport"),
    Absent(serves=serve, transport=SSETransport),
)


def _at_the_stream(received: Received) -> bool:
    return received.method == "POST" and received.target == "/mcp"


for _code in (400, 404, 405):
    CELLS.add(
        f"to a URL given as text; {_code} to every POST to the address of the stream",
        "connecting",
        Outcome(survives=False, note="by HTTP+SSE, in a second session"),
        SseScene(fault=status(_code, BODIES["empty"]), meets=_at_the_stream, transport=at_url),
        within=CLOSE,
    )

for _code in STATUSES:
    for _name in ("empty", "HTML"):
        CELLS.add(
            f"to the GET, status {_code}; body: {_name}",
            "connecting",
            connecting(of_status(_code, _name)),
            SseScene(fault=status(_code, BODIES[_name]), meets=STREAM),
        )


def _no_stream(kind: str | None) -> Handler:
    async def handler(talk: Talk) -> None:
        await talk.reply(200, b"{}", kind)

    return handler


for _kind in ("application/json", "text/html", None):
    CELLS.add(
        f"to the GET; {_kind or 'no content type'}",
        "connecting",
        not_connected("violation"),
        SseScene(fault=_no_stream(_kind), meets=STREAM),
    )

for _fault, _handler in {
    **WHOLE,
    "cut off by FIN before the endpoint": breaks(b"", close),
    "cut off by RST before the endpoint": breaks(b": hello\n\n", reset),
    "cut off within the endpoint": breaks(b"event: endpoint\ndata: /mess", close),
    "garbage before the endpoint": breaks(b"", garbage),
}.items():
    CELLS.add(
        f"to the GET; {_fault}",
        "connecting",
        not_connected("transport"),
        SseScene(fault=_handler, meets=STREAM),
    )
for _fault, _handler in (
    ("ends before the endpoint", no_events),
    ("ends behind a message, before the endpoint", breaks(MESSAGE, end_events)),
):
    CELLS.add(
        f"to the GET; {_fault}",
        "connecting",
        not_connected("eof", SessionLostError),
        SseScene(fault=_handler, meets=STREAM),
    )

for _fault, _handler in (
    ("never answered", never),
    ("half of the headers, then silence", SILENCES["half of the headers, then silence"]),
    ("a stream, then silence", begins_with()),
    ("half an endpoint, then silence", begins_with(b"event: endpoint\ndata: /mess")),
    ("an endpoint without data", begins_with(b"event: endpoint\n\n")),
    ("an endpoint by another event name", begins_with(b"event: message\ndata: /messages\n\n")),
    ("comments for ever", for_ever(b": still here\n\n")),
    ("notifications for ever", for_ever(MESSAGE)),
):
    CELLS.add(
        f"to the GET; {_fault}",
        "connecting",
        TOO_SLOW,
        SseScene(fault=_handler, meets=STREAM, connect=CONNECT),
        within=CONNECT,
    )
CELLS.add(
    "to the GET; an event in place of the endpoint that is larger than `Limits.max_message_bytes`",
    "connecting",
    TOO_SLOW,
    SseScene(fault=endpoint(b"/" + b"x" * LIMIT), meets=STREAM, connect=CONNECT, limits=SMALL),
    within=CONNECT,
)

CELLS.add(
    f"to the GET; {INBOX_SIZE + 1} notifications before the endpoint",
    "connecting",
    not_connected("violation", says=f"named no endpoint in {INBOX_SIZE} messages"),
    SseScene(
        fault=begins_with(MESSAGE * (INBOX_SIZE + 1), b"event: endpoint\ndata: /messages\n\n"), meets=STREAM
    ),
)

for _fault, _address, _says in (
    ("at another origin", b"http://127.0.0.1:1/messages?token=hush", "another origin"),
    ("at another host", b"//other.example/messages", "another origin"),
    ("of another scheme", b"https://127.0.0.1/messages", "another origin"),
    ("that is a file", b"file:///etc/passwd", "no URL"),
    ("that is no URL", b"http://[/", "no URL"),
    ("that is not UTF-8", b"/\xff", "no URL"),
    ("that is empty", b"", "empty"),
    ("that is too long", b"/" + b"x" * 9000, "8192 bytes"),
):
    CELLS.add(
        f"an endpoint {_fault}",
        "connecting",
        not_connected("violation", says=_says),
        SseScene(fault=endpoint(_address), meets=STREAM),
    )


# --- redirects ---------------------------------------------------------------------------------------

for _fault, (_handler, _named) in REDIRECTS.items():
    _posted = failed("redirect", says=_named if not _named.startswith("/mcp") else "/messages")
    if "into a GET" not in _fault:
        CELLS.add(
            f"a redirect {_fault}",
            "connecting",
            not_connected("redirect", says=_named),
            SseScene(fault=_handler, meets=STREAM),
        )
    CELLS.add(f"a redirect {_fault}", "in flight", _posted, SseScene(fault=_handler))
    CELLS.add(
        f"a redirect {_fault}", "idle", _posted, SseScene(fault=_handler, meets=NOTIFICATIONS, act=notify)
    )


async def _moved(talk: Talk) -> None:
    _, _, query = talk.received.target.partition("?")
    await talk.reply(307, headers={"location": f"/elsewhere?{query}"})


CELLS.add(
    "a redirect within the origin", "in flight", Outcome(note="followed"), SseScene(fault=_moved, times=1)
)
for _meets in (STREAM, HANDSHAKE):
    CELLS.add(
        f"a redirect within the origin; of {'the GET' if _meets is STREAM else 'a POST'}",
        "connecting",
        Outcome(note="followed"),
        SseScene(fault=_moved, meets=_meets, times=1),
    )
