"""A person in a browser: shown a URL of an authorization server, and waited for until the browser comes back.

Must not know of tokens, or of which server is signed in to.
"""

from __future__ import annotations

import webbrowser
from collections.abc import Callable
from typing import Final, final
from urllib.parse import parse_qs, parse_qsl, urlencode

import anyio
from mcp.client.auth import AuthorizationCodeResult, OAuthFlowError

from anyio_mcp.auth.answers import quotable
from anyio_mcp.auth.callback import CallbackListener
from anyio_mcp.auth.oauth import OpenBrowser
from anyio_mcp.handlers.handler import Handler

_CLOSING_SECONDS: Final = 1.0
"""For what shows a browser to end by itself, once that has come back."""


@final
class Browser:
    """Sends the user to a URL, and waits for what comes back."""

    def __init__(
        self,
        opener: OpenBrowser | None,
        listener: CallbackListener,
        *,
        amend: Callable[[dict[str, str]], dict[str, str]],
    ) -> None:
        self._show = Handler("browser", opener or webbrowser.open)
        self._listener = listener
        self._amend = amend
        self.check: Callable[[], None] = lambda: None
        """Raises if nobody is to be sent anywhere."""

    async def open(self, url: str) -> None:
        self.check()
        # An endpoint may have a query of its own (RFC 6749, 3.1), and the SDK puts its "?" behind that.
        endpoint, _, query = url.rpartition("?")
        (state,) = parse_qs(query)["state"]
        query = urlencode(self._amend(dict(parse_qsl(query, keep_blank_values=True))))
        url = f"{endpoint}{'&' if '?' in endpoint else '?'}{query}"
        self._listener.expect(state)
        shown: object = None
        failure: Exception | None = None
        async with anyio.create_task_group() as showing:
            showing.start_soon(self._until_back, showing.cancel_scope, name="anyio_mcp oauth browser")
            try:
                shown = await self._show(url)
            except Exception as error:
                # Not through the task group, which would wrap it.
                failure = error
            showing.cancel_scope.cancel()
        if failure is not None:
            raise failure
        if shown is False:
            raise OAuthFlowError("no browser could be opened to sign in; OAuth(open_browser=) is how else")

    async def _until_back(self, showing: anyio.CancelScope) -> None:
        """Some browsers return only when they are left: whoever has signed in does not wait for that."""
        await self._listener.wait()
        await anyio.sleep(_CLOSING_SECONDS)
        showing.cancel()

    async def wait(self) -> AuthorizationCodeResult:
        callback = await self._listener.wait()
        if callback.error is not None:
            said = quotable(callback.description or "")
            raise OAuthFlowError(
                f"signing in was refused: {quotable(callback.error)!r}{f' ({said})' if said else ''}"
            )
        return AuthorizationCodeResult(code=callback.code, state=callback.state, iss=callback.issuer)
