"""A connection over the pipes of a child process: what is sent, what is received, how its loss is told.

Starting and ending the process is not its business (`_child.py`, `stdio.py`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final, final

import anyio
import anyio.lowlevel
from anyio.abc import ObjectReceiveStream
from mcp.types import JSONRPCRequest, RequestId

from anyio_mcp._text import BoundedLog
from anyio_mcp.config import Limits
from anyio_mcp.errors import LossReason, RequestFailedError, SessionLostError, fresh
from anyio_mcp.transports._attribution import answered_request, ends_of
from anyio_mcp.transports._boundary import contained
from anyio_mcp.transports._child import END_OF_PIPE, ChildProcess
from anyio_mcp.transports._inbox import Inbox
from anyio_mcp.transports._lines import Line, LineFramer, Oversized, read_line
from anyio_mcp.transports._messages import encode_message
from anyio_mcp.transports._reading import Received
from anyio_mcp.transports.base import (
    Connection,
    ConnectionLost,
    Incoming,
    Liveness,
    Outgoing,
    Remarks,
    RequestFault,
    Violation,
)

CHUNK_BYTES: Final = 64 * 1024

LAST_WORDS_SECONDS: Final = 0.05
"""The longest to wait, in all, for what a lost server still has to say: its last message, its stderr. What
is in the pipes already takes no waiting."""

EXIT_SECONDS: Final = 0.5
"""The longest to wait for the exit of a server whose pipes have ended. Most close them by exiting, and on
a busy machine that takes a while; the exit code is worth more than the early news of a server that lives."""

LAST_WORDS_BYTES: Final = 256 * 1024
"""The most to read after an exit. Pipes and buffers hold less, so more of it is not the server's: a
descendant that writes without end must not delay the news."""

STRAY_LINES: Final = 5
"""How many of the first lines on stdout that are no messages are kept for errors."""

_LINES_A_STEP: Final = 500
"""Lines that are read before others have a turn."""

_STRAY_BYTES: Final = 500


@final
class PipeConnection(Connection):
    """One connection. The task that reads decides its end, so that the news of it comes last."""

    __slots__ = (
        "_bugs",
        "_child",
        "_ended",
        "_inbox",
        "_last_traffic",
        "_left_bytes",
        "_left_seconds",
        "_limits",
        "_reading",
        "_stray",
        "_suspicion",
        "_waiting_since",
        "_writing",
    )

    def __init__(self, child: ChildProcess, limits: Limits) -> None:
        self._child = child
        self._limits = limits
        self._inbox = Inbox()
        self._bugs = BoundedLog()
        # Full: what follows is counted as violations and otherwise left out.
        self._stray: list[str] = []
        self._last_traffic = self._waiting_since = anyio.current_time()
        self._reading: anyio.CancelScope | None = None
        self._writing: anyio.CancelScope | None = None
        # Why the connection is as good as lost. From then on only last words are read, with what is
        # left of the patience for them.
        self._suspicion: SessionLostError | None = None
        self._left_seconds = LAST_WORDS_SECONDS
        self._left_bytes = LAST_WORDS_BYTES
        self._ended: SessionLostError | None = None

    @property
    def incoming(self) -> ObjectReceiveStream[Incoming]:
        return self._inbox.stream

    @property
    def last_traffic(self) -> float:
        return self._last_traffic

    def abandon(self, request_id: RequestId) -> bool:
        """False: a pipe holds nothing for a request, and only a notification tells the server."""
        return False

    def liveness(self) -> Liveness:
        """A process that lives and whose pipes stand is busy, however long it says nothing; one that is
        stopped will not say anything."""
        return Liveness.STOPPED if self._child.is_stopped else Liveness.UNKNOWN

    def remarks(self) -> Remarks:
        return Remarks(self._child.stderr_tail, tuple(self._stray))

    async def send(self, outgoing: Outgoing) -> None:
        """Write one message. Waits for as long as the server does not read and its pipe is full.

        Cancelled while writing, it leaves an unknown part of the message behind, and what followed it
        would be read as its rest: the connection is lost then (`closed`).
        """
        # Cancelled here, the message was not taken over.
        await anyio.lowlevel.checkpoint_if_cancelled()
        message = outgoing.message
        lost = self._ended or self._suspicion
        if lost is not None:
            # A request needs no answer of its own any more: the loss of the connection is on its way.
            _deliver_receipt(outgoing, fresh(lost))
            await anyio.lowlevel.cancel_shielded_checkpoint()
            return
        failure: Exception | None
        try:
            data = encode_message(message) + b"\n"
        except (TypeError, ValueError, RecursionError) as error:
            text = f"the message cannot be written as JSON: {error}"
            failure = RequestFailedError(text, reason="transport", cause=error)
        else:
            failure = await self._write(data, outgoing)
        _deliver_receipt(outgoing, failure)
        if isinstance(failure, RequestFailedError) and isinstance(message, JSONRPCRequest):
            await self._inbox.put(RequestFault(message.id, failure))

    async def watch_exit(self) -> None:
        """Wait for the exit of the process, and have the connection end."""
        await self._child.watch()
        self._suspect(self._child.farewell, "exited")

    async def contain(self, work: Callable[[], Awaitable[None]]) -> None:
        """Run a task of the connection. A bug in it is logged and loses the connection, not the group."""
        try:
            await work()
        except Exception as error:
            fault = contained(error, "the server")
            await self._break_off(SessionLostError(str(fault), reason="violation", cause=error))

    async def _break_off(self, error: SessionLostError) -> None:
        try:
            self._end(error)
            if self._reading is not None:
                self._reading.cancel()
            await self._inbox.put_last(ConnectionLost(error))
        except Exception as bug:
            contained(bug, "the server")
            # Without a last item, the end of `incoming` is the end of the session.
            self._inbox.finish()

    async def read(self) -> None:
        """Read stdout to its end: while the connection lives to hand it on, then to discard it, or a
        server that wants to exit would wait for its output to be read."""
        await self.contain(self._read)
        await self.contain(self._discard)

    async def _read(self) -> None:
        framer = LineFramer(self._limits.max_message_bytes)
        while (chunk := await self._receive()) is not None:
            await self._hand_on(framer.feed(chunk))
        await self._hand_on(framer.finish())
        if self._ended is None:
            await self._lose()

    async def _discard(self) -> None:
        with suppress(*END_OF_PIPE):
            while True:
                await self._child.stdout.receive(CHUNK_BYTES)

    async def _hand_on(self, lines: list[Line]) -> None:
        # What is no message costs the server nothing: beyond the first ones, those of one chunk are one item.
        unread: Violation | None = None
        for number, line in enumerate(lines):
            if number % _LINES_A_STEP == _LINES_A_STEP - 1:
                await anyio.lowlevel.checkpoint()
            for item in self._read_line(line):
                if not isinstance(item, Violation):
                    if unread is not None:
                        await self._inbox.put(unread)
                        unread = None
                    await self._inbox.put(item, len(line) if isinstance(line, bytearray) else 0)
                elif len(self._stray) < STRAY_LINES:
                    self._stray.append(_beginning(line))
                    await self._inbox.put(item)
                else:
                    unread = item if unread is None else Violation(unread.detail, unread.count + 1)
        if unread is not None:
            await self._inbox.put(unread)

    def _read_line(self, line: Line) -> list[Received]:
        try:
            return read_line(line, self._limits)
        except Exception as error:
            fault = contained(error, "the server", log=self._bugs)
        request_id: RequestId | None = None
        with suppress(
            Exception
        ):  # what is broken above may be broken here: then nobody knows whose line it was
            head, tail = (line.head, line.tail) if isinstance(line, Oversized) else ends_of(line)
            request_id = answered_request(head, tail)
        return [Violation(str(fault)) if request_id is None else RequestFault(request_id, fault)]

    def close(self) -> None:
        """Nothing is handed on any more. Does not wait."""
        self._end(SessionLostError("the connection is closed", reason="closed"))
        self._inbox.close()

    async def _write(self, data: bytes, outgoing: Outgoing) -> Exception | None:
        """Returns why the message was not written. Raises nothing but cancellation."""
        scope = self._writing = anyio.CancelScope()
        try:
            with scope:
                await self._child.stdin.send(data)
                return None
        except END_OF_PIPE as error:
            self._suspect("the server stopped reading: its input is closed", "eof", error)
            text = "the message was not written: the server does not read any more"
            return RequestFailedError(text, reason="transport", cause=error)
        except BaseException:
            text = "a message was cut off: its sender was cancelled while writing it"
            self._suspect(text, "closed")
            _deliver_receipt(outgoing, RequestFailedError(text, reason="transport"))
            raise
        finally:
            self._writing = None
        # Nothing but the end of the connection cancels the scope.
        return None if self._ended is None else fresh(self._ended)

    async def _receive(self) -> bytes | None:
        """The next bytes; None at the end of the stream, or of the patience with a lost server."""
        if self._ended is not None or self._left_bytes < 0:
            return None
        chunk: bytes | None = None
        self._waiting_since = anyio.current_time()
        scope = self._reading = anyio.CancelScope()
        if self._suspicion is not None:
            scope.deadline = self._waiting_since + self._left_seconds
        with scope:
            try:
                chunk = await self._child.stdout.receive(CHUNK_BYTES)
            except END_OF_PIPE as error:
                cause = None if isinstance(error, anyio.EndOfStream) else error
                self._suspect("the server closed its output", "eof", cause)
        self._reading = None
        now = anyio.current_time()
        if self._suspicion is not None:
            self._left_seconds -= now - self._waiting_since
            self._left_bytes -= len(chunk or b"")
        if chunk is not None:
            self._last_traffic = now
        return chunk

    def _suspect(self, text: str, reason: LossReason, cause: Exception | None = None) -> None:
        """The connection is lost, for this reason unless its process turns out to have exited. The
        reader has little patience from now on."""
        if self._suspicion is None:
            self._suspicion = SessionLostError(text, reason=reason, cause=cause)
            if self._reading is not None:
                self._waiting_since = anyio.current_time()
                self._reading.deadline = self._waiting_since + self._left_seconds

    async def _lose(self) -> None:
        """Decide why, end the connection, and say so behind everything that came before."""
        with anyio.move_on_after(EXIT_SECONDS):
            await self._child.exited.wait()
        with anyio.move_on_after(max(self._left_seconds, 0.0)):
            await self._child.stderr_ended.wait()
        error = self._loss()
        self._end(error)
        await self._inbox.put_last(ConnectionLost(error))

    def _loss(self) -> SessionLostError:
        child, suspicion = self._child, self._suspicion
        if suspicion is None or (child.exited.is_set() and suspicion.reason != "closed"):
            suspicion = SessionLostError(child.farewell, reason="exited")
        text, remarks = str(suspicion), self.remarks()
        return SessionLostError(
            f"{text}: {remarks}" if str(remarks) else text,
            reason=suspicion.reason,
            cause=suspicion.cause,
            exit_code=child.exit_code,
            stderr_tail=remarks.stderr_tail,
            stray_lines=remarks.stray_lines,
        )

    def _end(self, error: SessionLostError) -> None:
        # The first reason stays: a server that exited is not "closed" when it is left.
        if self._ended is None:
            self._ended = error
        self._inbox.end()
        if self._writing is not None:
            # Somebody else may hold the other end of the pipe, and never read it.
            self._writing.cancel()


def _beginning(line: Line) -> str:
    """As much of a line as an error has room for."""
    data = line.head if isinstance(line, Oversized) else line
    return data[:_STRAY_BYTES].decode("utf-8", "replace").rstrip()


def _deliver_receipt(outgoing: Outgoing, failure: Exception | None) -> None:
    if outgoing.receipt is not None:
        outgoing.receipt(failure)
