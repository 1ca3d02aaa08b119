"""The fault matrix without bytes: a scripted peer and default settings, on virtual time.

What takes 300 seconds here takes 300 seconds of a user's as well, which is how the matrix shows that with
default settings no cell hangs.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeAlias

import anyio
from mcp.types import ListRootsResult

from anyio_mcp import (
    Client,
    ConnectError,
    DeadlineExceededError,
    MCPError,
    RequestFailedError,
    SessionLostError,
)
from anyio_mcp.testing import (
    Fault,
    FaultKind,
    FaultPlan,
    FaultyTransport,
    PeerRequest,
    ScriptedPeer,
    check_at_rest,
    silence,
)
from anyio_mcp.transports.base import Liveness
from tests.faults.matrix import Cell, Era, Observed, Outcome, Phase

ERAS: Final[tuple[Era, ...]] = ("legacy", "modern")

CONNECT: Final = 30.0
CALL: Final = 300.0
TOTAL: Final = 3600.0
CLOSE: Final = 5.0
SILENCE: Final = 15.0 + 10.0
"""The defaults of `Timeouts` and `Heartbeat`, as the documentation gives them."""

BEGINNINGS: Final = ("server/discover", "initialize")

Answering: TypeAlias = Callable[[PeerRequest], Any]


def text_result(text: str = "echo", **others: Any) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": text}], **others}


@dataclass(slots=True, eq=False)
class Stage:
    """One client and its peer, and whether the fault is still made."""

    era: Era
    peer: ScriptedPeer
    broken: bool = True
    _client: Client | None = None
    seen: list[Any] = field(default_factory=list[Any])
    """What handlers of the client have noted."""

    @property
    def client(self) -> Client:
        assert self._client is not None
        return self._client

    def on(self, method: str, faulty: Answering) -> None:
        """Answer `method` with `faulty` for as long as the fault is made, and as usual afterwards."""
        usual = _usual(self.era, method)

        def answer(request: PeerRequest) -> Any:
            if self.broken:
                return faulty(request)
            if usual is None:
                raise MCPError(-32601, "Method not found")
            return usual

        self.peer.on(method, answer)


def _usual(era: Era, method: str) -> dict[str, Any] | None:
    match method, era:
        case "initialize", "legacy":
            return {
                "protocolVersion": "2025-11-25",
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "scripted peer", "version": "1"},
            }
        case "server/discover", "modern":
            return {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}}
        case "ping", "legacy":
            return {}
        case "tools/list", _:
            return {"tools": [{"name": "echo", "inputSchema": {"type": "object"}}]}
        case "tools/call", _:
            return text_result()
        case _:
            return None


async def echo(stage: Stage) -> None:
    result = await stage.client.call_tool("echo")
    assert result.content[0].text == "echo"


async def lets_time_pass(stage: Stage) -> None:
    """For what is made while nobody calls: every task has done what it can by the end of a second."""
    await anyio.sleep(1)


async def echo_and_a_moment(stage: Stage) -> None:
    await echo(stage)
    await lets_time_pass(stage)


@dataclass(frozen=True, slots=True, kw_only=True)
class Play:
    """One fault, made by a peer in memory."""

    set_up: Callable[[Stage], None] = lambda stage: None
    """What the peer does wrong, before anybody connects."""
    happens: Callable[[Stage], None] | None = None
    """What goes wrong between calls."""
    act: Callable[[Stage], Awaitable[None]] = echo
    """What meets the fault."""
    options: Callable[[Stage], Mapping[str, Any]] = lambda stage: {}
    faults: tuple[Fault, ...] = ()
    check: Callable[[Stage], None] = lambda stage: None
    """Of what the session that met the fault has seen and counted."""
    mend: Callable[[Stage], None] = lambda stage: None
    leaves: bool = False
    """What is wrong stays so for as long as the session lasts: it is left, and entered anew."""

    async def __call__(self, cell: Cell) -> Observed:
        stage = Stage(cell.era, ScriptedPeer(era=cell.era))
        self.set_up(stage)
        transport: Any = stage.peer.transport
        if self.faults:
            transport = FaultyTransport(transport, FaultPlan(faults=self.faults))
        mode = "legacy" if cell.era == "legacy" else "auto"
        stage._client = Client(transport, mode=mode, **self.options(stage))
        observed = await (self._connecting(stage) if cell.phase == "connecting" else self._later(stage, cell))
        check_at_rest(stage.client)
        assert stage.peer.open_connections == 0
        return observed

    def _mended(self, stage: Stage) -> None:
        stage.broken = False
        stage.peer.on_connect = None
        stage.peer.farewell = 0
        self.mend(stage)

    async def _connecting(self, stage: Stage) -> Observed:
        began = anyio.current_time()
        try:
            async with stage.client:
                seconds = anyio.current_time() - began
                self.check(stage)
                self._mended(stage)
                await echo(stage)
            return Observed(error=None, survived=True, works=True, seconds=seconds)
        except Exception as error:
            seconds = anyio.current_time() - began
            self.check(stage)
            self._mended(stage)
            async with stage.client:
                await echo(stage)
            return Observed(error=error, survived=False, works=True, seconds=seconds)

    async def _later(self, stage: Stage, cell: Cell) -> Observed:
        client = stage.client
        error: Exception | None = None
        began = 0.0
        async with client:
            if cell.phase == "idle":
                stage.broken = False
                await echo(stage)
                stage.broken = True
            if self.happens is not None:
                self.happens(stage)
                await lets_time_pass(stage)
            began = anyio.current_time()
            if cell.phase != "closing":
                try:
                    await self.act(stage)
                except Exception as caught:
                    error = caught
                seconds = anyio.current_time() - began
                if client.stats().sessions_started == 1:
                    self.check(stage)
                self._mended(stage)
                if self.leaves:
                    await client.close()
                    return await self._again(stage, error, seconds)
                await echo(stage)
                survived = client.stats().sessions_started == 1
                return Observed(error=error, survived=survived, works=True, seconds=seconds)
        seconds = anyio.current_time() - began
        self.check(stage)
        self._mended(stage)
        return await self._again(stage, None, seconds)

    async def _again(self, stage: Stage, error: Exception | None, seconds: float) -> Observed:
        async with stage.client:
            await echo(stage)
        return Observed(error=error, survived=False, works=True, seconds=seconds)


# --- what a call ends in ----------------------------------------------------------------------------

WORKS = Outcome()
REPLACED = Outcome(survives=False)
TOO_LATE = Outcome(raises=DeadlineExceededError, attributes={"phase": "call", "seconds": CALL})
TOO_SLOW = Outcome(
    raises=DeadlineExceededError, attributes={"phase": "connect", "seconds": CONNECT}, survives=False
)


def lost(reason: str) -> Outcome:
    return Outcome(raises=SessionLostError, attributes={"reason": reason}, survives=False)


def failed(reason: str) -> Outcome:
    return Outcome(raises=RequestFailedError, attributes={"reason": reason})


def not_connected(cause: type[BaseException]) -> Outcome:
    return Outcome(raises=ConnectError, cause=cause, survives=False)


# --- the cells --------------------------------------------------------------------------------------

CELLS: list[Cell] = []


def add(
    fault: str,
    phase: Phase,
    outcome: Outcome,
    play: Callable[[Cell], Awaitable[Observed]],
    *,
    within: float = 0.0,
    eras: tuple[Era, ...] = ERAS,
) -> None:
    CELLS.extend(
        Cell(
            area="memory",
            fault=fault,
            phase=phase,
            era=era,
            outcome=outcome,
            within=within,
            run=play,
            clock="virtual",
        )
        for era in eras
    )


# Connecting


def hangs(stage: Stage) -> None:
    async def never(attempt: int) -> None:
        await anyio.sleep(math.inf)

    stage.peer.on_connect = never


def refuses(error: Exception) -> Callable[[Stage], None]:
    def set_up(stage: Stage) -> None:
        async def refuse(attempt: int) -> None:
            raise error

        stage.peer.on_connect = refuse

    return set_up


def at_the_beginning(faulty: Answering) -> Callable[[Stage], None]:
    def set_up(stage: Stage) -> None:
        for method in BEGINNINGS:
            stage.on(method, faulty)

    return set_up


def at_initialize(result: Mapping[str, Any]) -> Callable[[Stage], None]:
    return lambda stage: stage.on(
        "initialize", lambda _: {**(_usual("legacy", "initialize") or {}), **result}
    )


def answers_not(does: Callable[[PeerRequest], object]) -> Answering:
    """Do something instead of answering."""

    def answer(request: PeerRequest) -> None:
        does(request)

    return answer


def refuses_with(code: int) -> Answering:
    def answer(request: PeerRequest) -> None:
        raise MCPError(code, "no")

    return answer


_STRAY: Mapping[str, Answering] = {
    "never answers": silence,
    "answers with the wrong id": answers_not(lambda request: request.connection.answer(4711, text_result())),
    "answers with an error for nobody": answers_not(
        lambda request: request.connection.refuse(None, -32603, "no")
    ),
    "sends malformed messages only": answers_not(lambda request: request.connection.violate()),
    "stops reading": answers_not(lambda request: request.connection.wedge()),
}

add("the transport never connects", "connecting", TOO_SLOW, Play(set_up=hangs), within=CONNECT)
add(
    "the transport raises",
    "connecting",
    not_connected(OSError),
    Play(set_up=refuses(ConnectionRefusedError("no"))),
)
add(
    "the transport raises a group",
    "connecting",
    not_connected(OSError),
    Play(set_up=refuses(ExceptionGroup("all", [ExceptionGroup("of it", [OSError("no")])]))),
)
for _fault, _answering in _STRAY.items():
    add(_fault, "connecting", TOO_SLOW, Play(set_up=at_the_beginning(_answering)), within=CONNECT)
add(
    "ends the connection",
    "connecting",
    not_connected(SessionLostError),
    Play(set_up=at_the_beginning(answers_not(lambda request: request.connection.lose("eof")))),
)
add(
    "ends the connection without a word",
    "connecting",
    not_connected(SessionLostError),
    Play(set_up=at_the_beginning(answers_not(lambda request: request.connection.end()))),
)
add(
    "refuses to begin",
    "connecting",
    Outcome(raises=MCPError, attributes={"code": -32603}, survives=False),
    Play(set_up=at_the_beginning(refuses_with(-32603))),
)
add(
    "speaks a version nobody knows",
    "connecting",
    Outcome(raises=ConnectError, survives=False),
    Play(set_up=at_initialize({"protocolVersion": "1999-01-01"})),
    eras=("legacy",),
)
for _fault, _result in (
    ("says nothing of itself", {"serverInfo": None}),
    ("has capabilities that are none", {"capabilities": [1, 2]}),
):
    add(_fault, "connecting", Outcome(), Play(set_up=at_initialize(_result)), eras=("legacy",))
add(
    "a discovery that makes no sense",
    "connecting",
    Outcome(raises=MCPError, attributes={"code": -32601}, survives=False),
    Play(set_up=lambda stage: stage.on("server/discover", lambda _: {"supportedVersions": "all of them"})),
    eras=("modern",),
)
add(
    "never acknowledges notifications/initialized",
    "connecting",
    WORKS,
    Play(set_up=lambda stage: stage.peer.on_delivery("notifications/initialized", None)),
    within=5.0,
    eras=("legacy",),
)
add(
    "refuses notifications/initialized",
    "connecting",
    WORKS,
    Play(
        set_up=lambda stage: stage.peer.on_delivery(
            "notifications/initialized", RequestFailedError("no", reason="transport")
        )
    ),
    eras=("legacy",),
)

# A call in flight: what the peer answers


def at_the_call(faulty: Answering) -> Callable[[Stage], None]:
    return lambda stage: stage.on("tools/call", faulty)


def counts(**numbers: int) -> Callable[[Stage], None]:
    def check(stage: Stage) -> None:
        stats = stage.client.stats()
        for name, number in numbers.items():
            assert getattr(stats, name) == number, f"{name} is {getattr(stats, name)}"

    return check


def goes_dead(stage: Stage) -> None:
    """Answers nothing more: neither calls nor questions whether it lives."""
    for method in ("tools/call", "ping"):
        stage.on(method, silence)
    # The first discovery belongs to connecting.
    asked = 0

    def discover(request: PeerRequest) -> Any:
        nonlocal asked
        asked += 1
        return _usual(stage.era, "server/discover") if asked == 1 else None

    if stage.era == "modern":
        stage.on("server/discover", discover)


def is_stopped(request: PeerRequest) -> None:
    request.connection.evidence = Liveness.STOPPED


def answers_twice(request: PeerRequest) -> None:
    request.answer(text_result())
    request.answer(text_result())


def violates_and_answers(request: PeerRequest) -> Any:
    for _ in range(3):
        request.connection.violate()
    return text_result()


async def keeps_notifying(request: PeerRequest) -> None:
    while not request.connection.is_lost:
        request.connection.notify("notifications/message", {"level": "info", "data": "busy"})
        await anyio.sleep(5)


async def keeps_progressing(request: PeerRequest) -> None:
    done = 0
    while not request.connection.is_lost:
        done += 1
        request.progress(done)
        await anyio.sleep(100)


add("is dead", "in flight", TOO_LATE, Play(set_up=goes_dead), within=CALL)
add(
    "is dead, and its process is found stopped",
    "in flight",
    lost("silent"),
    Play(set_up=at_the_call(answers_not(is_stopped))),
    within=SILENCE,
)
add(
    "stops reading",
    "in flight",
    TOO_LATE,
    Play(set_up=at_the_call(_STRAY["stops reading"]), mend=lambda stage: stage.peer.connection.unwedge()),
    within=CALL,
)
for _fault in ("never answers", "answers with the wrong id", "answers with an error for nobody"):
    add(f"{_fault}, and lives", "in flight", TOO_LATE, Play(set_up=at_the_call(_STRAY[_fault])), within=CALL)
add(
    "sends malformed messages only, and lives",
    "in flight",
    TOO_LATE,
    Play(
        set_up=at_the_call(_STRAY["sends malformed messages only"]),
        check=counts(violations=1),
    ),
    within=CALL,
)
add(
    "malformed messages before the answer",
    "in flight",
    WORKS,
    Play(set_up=at_the_call(violates_and_answers), check=counts(violations=3)),
)
add(
    "two answers",
    "in flight",
    WORKS,
    Play(set_up=at_the_call(answers_twice), act=echo_and_a_moment, check=counts(late_replies=1)),
    within=1.0,
)
add(
    "a result that is none",
    "in flight",
    failed("violation"),
    Play(set_up=at_the_call(lambda _: {"content": 17})),
)
add(
    "an error as the answer",
    "in flight",
    Outcome(raises=MCPError, attributes={"code": -32000, "message": "no"}),
    Play(set_up=at_the_call(refuses_with(-32000))),
)
add(
    "the exchange fails",
    "in flight",
    failed("transport"),
    Play(
        set_up=at_the_call(
            answers_not(lambda request: request.fault(RequestFailedError("reset", reason="transport")))
        )
    ),
)
for _reason in ("eof", "exited", "expired", "violation"):
    add(
        f"the connection is lost ({_reason})",
        "in flight",
        lost(_reason),
        Play(
            set_up=at_the_call(answers_not(lambda request, reason=_reason: request.connection.lose(reason)))
        ),
    )
add(
    "the connection ends without a word",
    "in flight",
    lost("eof"),
    Play(set_up=at_the_call(answers_not(lambda request: request.connection.end()))),
)
add(
    "notifications for ever",
    "in flight",
    TOO_LATE,
    Play(set_up=at_the_call(keeps_notifying)),
    within=CALL,
)


async def with_progress(stage: Stage) -> None:
    async def note(progress: float, total: float | None, message: str | None) -> None:
        stage.seen.append(progress)

    await stage.client.call_tool("echo", progress_handler=note)


add(
    "progress for ever",
    "in flight",
    Outcome(raises=DeadlineExceededError, attributes={"phase": "call", "seconds": TOTAL}),
    Play(set_up=at_the_call(keeps_progressing), act=with_progress),
    within=TOTAL,
)

# Too much

FLOOD = 5_000


def floods(request: PeerRequest) -> Any:
    for number in range(FLOOD):
        request.connection.notify("notifications/message", {"level": "info", "data": number})
    return text_result()


def asks_too_much(request: PeerRequest) -> Any:
    for number in range(300):
        request.connection.request(f"ask-{number}", "roots/list")
    return text_result()


def reports_too_much(request: PeerRequest) -> Any:
    for number in range(FLOOD):
        request.progress(number)
    return text_result()


def never_returns(stage: Stage) -> Callable[..., Awaitable[None]]:
    async def handler(*_: Any) -> None:
        await anyio.sleep(math.inf)

    return handler


def check_drops(stage: Stage) -> None:
    dropped = stage.client.stats().dropped_notifications
    # What the queue and the handlers under way can hold was not dropped; the rest was, and counted.
    assert FLOOD - 2 * 1024 < dropped < FLOOD


add(
    "a flood of notifications, their handler never returns",
    "in flight",
    WORKS,
    Play(
        set_up=at_the_call(floods),
        options=lambda stage: {"log_handler": never_returns(stage)},
        check=check_drops,
    ),
)


def floods_between_calls(stage: Stage) -> None:
    for number in range(FLOOD):
        stage.peer.connection.notify("notifications/message", {"level": "info", "data": number})


add("a flood of notifications", "idle", WORKS, Play(happens=floods_between_calls))
add(
    "300 requests at once, their handler never returns",
    "in flight",
    WORKS,
    Play(
        set_up=at_the_call(asks_too_much),
        options=lambda stage: {"roots": never_returns(stage)},
        check=counts(refused_requests=200),
    ),
    eras=("legacy",),
)


async def with_slow_progress(stage: Stage) -> None:
    async def note(progress: float, total: float | None, message: str | None) -> None:
        stage.seen.append(progress)
        if progress == FLOOD - 1:
            await anyio.sleep(3)
            stage.seen.append("finished")

    await stage.client.call_tool("echo", progress_handler=note)


def check_progress_flood(stage: Stage) -> None:
    *updates, last = stage.seen
    assert last == "finished"
    assert updates == sorted(updates)
    assert updates[-1] == FLOOD - 1
    assert len(updates) + stage.client.stats().dropped_progress == FLOOD


add(
    "a flood of progress",
    "in flight",
    WORKS,
    Play(set_up=at_the_call(reports_too_much), act=with_slow_progress, check=check_progress_flood),
    within=3.0,
)

# Listings


def endless(member: str) -> Answering:
    def page(request: PeerRequest) -> Any:
        number = int(request.params.get("cursor") or 0)
        return {member: [], "nextCursor": str(number + 1)}

    return page


def repeating(member: str) -> Answering:
    return lambda request: {member: [], "nextCursor": "again"}


for _verb, _method, _member in (
    ("list_tools", "tools/list", "tools"),
    ("list_resources", "resources/list", "resources"),
    ("list_resource_templates", "resources/templates/list", "resourceTemplates"),
    ("list_prompts", "prompts/list", "prompts"),
):
    for _fault, _pages in (("a list without an end", endless), ("a list that goes round", repeating)):
        add(
            f"{_fault} ({_method})",
            "in flight",
            failed("violation"),
            Play(
                set_up=lambda stage, method=_method, member=_member, pages=_pages: stage.on(
                    method, pages(member)
                ),
                act=lambda stage, verb=_verb: getattr(stage.client, verb)(),
            ),
        )


def never_lists(stage: Stage) -> None:
    stage.on("tools/list", silence)
    stage.on("tools/call", lambda _: text_result(structuredContent={"n": 1}))


add(
    "tools/list never answers the first call",
    "in flight",
    WORKS,
    Play(set_up=never_lists),
    within=30.0,
)

# Faults of the wire, by plan. In each era the messages are counted from the beginning of the connection:
# two out and one in before the first call of a legacy session, one of each before that of a modern one.

_PLANNED: Mapping[tuple[FaultKind, str], tuple[Outcome, float]] = {
    (FaultKind.DROP, "out"): (TOO_LATE, CALL),
    (FaultKind.DROP, "in"): (TOO_LATE, CALL),
    (FaultKind.DELAY, "out"): (WORKS, 1.0),
    (FaultKind.DELAY, "in"): (WORKS, 1.0),
    (FaultKind.DUPLICATE, "out"): (WORKS, 0.0),
    (FaultKind.DUPLICATE, "in"): (WORKS, 0.0),
    (FaultKind.CORRUPT, "out"): (TOO_LATE, CALL),
    (FaultKind.CORRUPT, "in"): (TOO_LATE, CALL),
    (FaultKind.FAIL, "out"): (failed("transport"), 0.0),
    (FaultKind.FAIL, "in"): (TOO_LATE, CALL),
    (FaultKind.LOSE, "out"): (lost("eof"), 0.0),
    (FaultKind.LOSE, "in"): (lost("eof"), 0.0),
    (FaultKind.WEDGE, "out"): (replace(TOO_LATE, survives=False), CALL),
    (FaultKind.WEDGE, "in"): (replace(TOO_LATE, survives=False), CALL),
}

for (_kind, _way), (_outcome, _within) in _PLANNED.items():
    for _era, _before in (("legacy", {"out": 2, "in": 1}), ("modern", {"out": 1, "in": 1})):
        add(
            f"the {'request' if _way == 'out' else 'answer'} meets {_kind.name}",
            "in flight",
            _outcome,
            Play(
                faults=(Fault(kind=_kind, way=_way, message=_before[_way] + 1, connection=1),),
                leaves=_kind is FaultKind.WEDGE,
            ),
            within=_within,
            eras=(_era,),
        )

# Between calls


def loses(reason: Any) -> Callable[[Stage], None]:
    return lambda stage: stage.peer.connection.lose(reason)


def strays(stage: Stage) -> None:
    connection = stage.peer.connection
    connection.answer(4711, {})
    connection.answer(1, {})
    connection.refuse(None, -32603, "no")
    connection.violate()
    connection.progress("nobody", 1)
    connection.notify("notifications/progress", {"progressToken": 1, "progress": "much"})


def asks_what_nobody_knows(stage: Stage) -> None:
    for _ in range(10):
        stage.peer.ask("what/ever")


for _reason in ("eof", "exited", "expired", "violation"):
    add(f"the connection is lost ({_reason})", "idle", REPLACED, Play(happens=loses(_reason)), within=1.0)
add(
    "the connection ends without a word",
    "idle",
    REPLACED,
    Play(happens=lambda stage: stage.peer.connection.end()),
    within=1.0,
)
add(
    "the server stops reading",
    "idle",
    TOO_LATE,
    Play(
        happens=lambda stage: stage.peer.connection.wedge(),
        mend=lambda stage: stage.peer.connection.unwedge(),
    ),
    within=CALL,
)
add(
    "answers nobody asked for",
    "idle",
    WORKS,
    Play(happens=strays, check=counts(unknown_replies=1, late_replies=1, violations=3)),
)
add(
    "unknown requests",
    "idle",
    WORKS,
    Play(happens=asks_what_nobody_knows),
)

# Handlers of the user's


def tells(request: PeerRequest) -> Any:
    request.connection.notify("notifications/message", {"level": "info", "data": "hello"})
    return text_result()


def raises(stage: Stage) -> Callable[..., Awaitable[None]]:
    async def handler(*_: Any) -> None:
        stage.seen.append("raised")
        raise RuntimeError("a bug of the user's")

    return handler


def calls_back(stage: Stage) -> Callable[..., Awaitable[None]]:
    async def handler(*_: Any) -> None:
        stage.broken = False
        await echo(stage)
        stage.seen.append("called back")

    return handler


def saw(*what: str) -> Callable[[Stage], None]:
    def check(stage: Stage) -> None:
        assert stage.seen == list(what)

    return check


for _fault, _handler, _check in (
    ("raises", raises, saw("raised")),
    ("never returns", never_returns, saw()),
    ("calls the same client", calls_back, saw("called back")),
):
    for _option in ("log_handler", "message_handler"):
        add(
            f"a {_option} that {_fault}",
            "in flight",
            WORKS,
            Play(
                set_up=at_the_call(tells),
                act=echo_and_a_moment,
                options=lambda stage, option=_option, handler=_handler: {option: handler(stage)},
                check=_check,
            ),
            within=1.0,
        )


def asks_for_roots(request: PeerRequest) -> Any:
    request.connection.request("ask", "roots/list")
    return text_result()


for _fault, _handler, _check in (
    ("raises", raises, saw("raised")),
    ("never returns", never_returns, saw()),
):
    add(
        f"a handler of a request that {_fault}",
        "in flight",
        WORKS,
        Play(
            set_up=at_the_call(asks_for_roots),
            act=echo_and_a_moment,
            options=lambda stage, handler=_handler: {"roots": handler(stage)},
            check=_check,
        ),
        within=1.0,
        eras=("legacy",),
    )


def calls_back_with_roots(stage: Stage) -> Callable[..., Awaitable[Any]]:
    call = calls_back(stage)

    async def handler(*_: Any) -> ListRootsResult:
        await call()
        return ListRootsResult(roots=[])

    return handler


def waits_for_roots(stage: Stage) -> None:
    async def answer(request: PeerRequest) -> Any:
        await stage.peer.answer_to(stage.peer.ask("roots/list"))
        return text_result()

    stage.on("tools/call", answer)


add(
    "a handler of a request that calls the same client",
    "in flight",
    WORKS,
    Play(
        set_up=waits_for_roots,
        options=lambda stage: {"roots": calls_back_with_roots(stage)},
        check=saw("called back"),
    ),
    eras=("legacy",),
)

# Closing

add(
    "never acknowledges the end",
    "closing",
    REPLACED,
    Play(happens=lambda stage: setattr(stage.peer, "farewell", math.inf)),
    within=CLOSE,
)
add(
    "stops reading before the end",
    "closing",
    REPLACED,
    Play(happens=lambda stage: stage.peer.connection.wedge()),
    within=CLOSE,
)
add(
    "the connection is lost before the end",
    "closing",
    REPLACED,
    Play(happens=loses("eof")),
    within=CLOSE,
)
add(
    "a handler that never returns at the end",
    "closing",
    REPLACED,
    Play(
        happens=lambda stage: stage.peer.connection.notify(
            "notifications/message", {"level": "info", "data": "hello"}
        ),
        options=lambda stage: {"log_handler": never_returns(stage)},
    ),
    within=CLOSE,
)
