"""Sources of the SDK's client that are taken here as they are."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from mcp import StdioServerParameters

from anyio_mcp.client import Client
from anyio_mcp.transports import StdioTransport, infer_transport


def test_the_sdks_parameters_of_a_child_process_are_a_source(tmp_path: Path) -> None:
    transport = infer_transport(
        StdioServerParameters(command=sys.executable, args=["-V"], env={"KEY": "secret"}, cwd=tmp_path)
    )
    assert isinstance(transport, StdioTransport)
    assert (transport.command, transport.args, transport.env, transport.cwd) == (
        sys.executable,
        ("-V",),
        {"KEY": "secret"},
        str(tmp_path),
    )


def test_an_encoding_that_no_server_may_use_is_refused() -> None:
    for more in ({"encoding": "latin-1"}, {"encoding_error_handler": "replace"}):
        with pytest.raises(ValueError, match="UTF-8"):
            Client(StdioServerParameters.model_validate({"command": "server", **more}))


def test_a_refusal_of_such_parameters_shows_none_of_their_secrets() -> None:
    source = StdioServerParameters(command="server", env={"KEY": "a-secret"})
    with pytest.raises(ValueError, match="auth= is for") as caught:
        Client(source, auth="token")
    assert "a-secret" not in str(caught.value)
