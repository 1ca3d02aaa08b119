"""The POST of one request in HTTP+SSE, whose answer comes elsewhere: all it can say is that it failed.

Must not know of the stream that carries the answers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import final

import anyio
from mcp.types import JSONRPCRequest

from anyio_mcp.errors import SessionLostError
from anyio_mcp.transports._boundary import contained
from anyio_mcp.transports._headers import Stamp
from anyio_mcp.transports._wire import Wire, encode, refusal
from anyio_mcp.transports.base import RequestFault


@final
class RequestPost:
    """Runs as a task of its connection. `claim` says whether its fault is still news to anybody."""

    __slots__ = ("_claim", "_delayed", "_probe", "_wire", "request", "scope", "stamp")

    def __init__(
        self,
        wire: Wire,
        request: JSONRPCRequest,
        stamp: Stamp,
        claim: Callable[[RequestPost], bool],
        *,
        probe: bool = False,
        delayed: Callable[[str], None] | None = None,
    ) -> None:
        self.request = request
        self.scope = anyio.CancelScope()
        self._wire = wire
        self.stamp = stamp
        self._claim = claim
        self._probe = probe
        self._delayed = delayed

    async def run(self) -> None:
        """Ends when the POST was acknowledged or has failed, or when `scope` is cancelled."""
        with self.scope:
            try:
                fault = await self._post()
            except Exception as error:  # named nowhere else, as in `_exchange.py`
                await self._fail(contained(error, self._wire.http.describe))
            else:
                if fault is not None:
                    await self._fail(fault)

    async def _fail(self, fault: Exception) -> None:
        if not self._claim(self):
            return
        if isinstance(fault, SessionLostError):
            self._wire.lose(fault)
        await self._wire.inbox.put(RequestFault(self.request.id, fault))

    def give_up_soon(self) -> None:
        """The answer is there. An acknowledgement on its way lets the connection be used again."""
        self.scope.deadline = anyio.current_time() + self._wire.http.policy.drain_seconds

    async def _post(self) -> Exception | None:
        http = self._wire.http
        content = encode(self.request)
        async with http.open(
            "POST", self.stamp.headers, content, waits=not self._probe, delayed=self._delayed
        ) as response:
            if not response.is_success:
                return await refusal(self._wire, response, self.stamp, self.request.id, unseen=True)
            self._wire.bad_requests.answered()
            await http.discard(response)
        return None
