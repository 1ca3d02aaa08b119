"""What a client is configured with: checked when it is made, frozen, and copied without anything else."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from mcp.server.mcpserver import MCPServer
from mcp.types import Implementation, SamplingCapability
from mcp.types.version import HANDSHAKE_PROTOCOL_VERSIONS, LATEST_MODERN_VERSION

from anyio_mcp._session.lifecycle import SessionState
from anyio_mcp.client import Client
from anyio_mcp.config import DEFAULT_HEARTBEAT, DEFAULT_RESTART, Limits, Restart, Timeouts
from anyio_mcp.errors import NotConnectedError
from anyio_mcp.settings import Callbacks, ClientSettings
from anyio_mcp.transports.memory import MemoryTransport

SERVER = MCPServer("a server")

NO_HANDLERS: dict[str, Any] = {
    "roots": None,
    "sampling_handler": None,
    "sampling_capabilities": None,
    "elicitation_handler": None,
    "log_handler": None,
    "message_handler": None,
}


async def answer(*_: object) -> str:
    return "yes"


def test_no_handler_means_no_callback_except_for_logging() -> None:
    callbacks = Callbacks.of(**NO_HANDLERS)
    assert (callbacks.sampling, callbacks.elicitation, callbacks.roots, callbacks.message) == (None,) * 4
    assert callable(callbacks.logging), "log messages always go somewhere"


def test_each_handler_becomes_the_callback_of_its_kind() -> None:
    capabilities = SamplingCapability()
    callbacks = Callbacks.of(
        roots=["/tmp"],
        sampling_handler=answer,
        sampling_capabilities=capabilities,
        elicitation_handler=answer,
        log_handler=lambda message: None,
        message_handler=lambda message: None,
    )
    for name in ("roots", "sampling", "elicitation", "logging", "message"):
        assert callable(getattr(callbacks, name)), name
    assert callbacks.sampling_capabilities is capabilities


@pytest.mark.parametrize(
    "name", ["sampling_handler", "elicitation_handler", "log_handler", "message_handler"]
)
def test_a_handler_that_cannot_be_called_is_refused_when_the_client_is_made(name: str) -> None:
    with pytest.raises(TypeError, match="handler must be a function"):
        Callbacks.of(**{**NO_HANDLERS, name: "no function"})
    arguments: dict[str, Any] = {name: "no function"}
    with pytest.raises(TypeError, match="handler must be a function"):
        Client(SERVER, **arguments)


@pytest.mark.parametrize(
    ("roots", "kind"),
    [
        ("/tmp", TypeError),
        (7, TypeError),
        ([7], TypeError),
        (["tmp"], ValueError),
        (["http://x/"], ValueError),
    ],
    ids=repr,
)
def test_roots_that_are_none_are_refused_when_the_client_is_made(roots: Any, kind: type[Exception]) -> None:
    with pytest.raises(kind, match="root"):
        Client(SERVER, roots=roots)


def test_a_client_has_finite_defaults() -> None:
    settings = Client(SERVER)._settings
    assert settings.timeouts == Timeouts()
    assert settings.limits == Limits()
    assert settings.heartbeat == DEFAULT_HEARTBEAT
    assert settings.restart == DEFAULT_RESTART
    assert settings.mode == "auto"
    assert settings.auto_initialize


def test_settings_are_frozen_and_given_by_name() -> None:
    settings = Client(SERVER)._settings
    for value in (settings, settings.callbacks):
        field = dataclasses.fields(value)[0].name
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(value, field, None)
    settings_class: Any = ClientSettings
    with pytest.raises(TypeError, match="positional"):
        settings_class(MemoryTransport(SERVER))


def test_a_client_is_named_by_its_user_or_after_its_server() -> None:
    assert Client(SERVER, name="mine").name == "mine"
    assert Client(SERVER).name == "client of the server 'a server' in this process"
    assert repr(Client(SERVER, name="mine")) == "<Client 'mine' new>"


@pytest.mark.parametrize("mode", ["auto", "legacy", LATEST_MODERN_VERSION])
def test_a_mode_we_know_is_taken(mode: str) -> None:
    assert Client(SERVER, mode=mode)._settings.mode == mode


@pytest.mark.parametrize("mode", ["", "AUTO", "modern", "2099-01-01", None, 7])
def test_a_mode_we_do_not_know_is_refused_with_those_we_do(mode: Any) -> None:
    with pytest.raises(
        ValueError, match=f"must be one of 'auto', 'legacy', .*{LATEST_MODERN_VERSION}"
    ) as caught:
        Client(SERVER, mode=mode)
    assert "negotiated by" not in str(caught.value)


def test_a_version_of_the_handshake_is_refused_with_a_hint() -> None:
    for version in HANDSHAKE_PROTOCOL_VERSIONS:
        with pytest.raises(ValueError, match="versions up to it are negotiated by 'legacy'"):
            Client(SERVER, mode=version)


def test_a_client_that_was_never_entered_says_so() -> None:
    client = Client(SERVER, name="mine")
    assert client.state is SessionState.NEW
    assert not client.is_connected()
    for known in (
        "session",
        "initialize_result",
        "discover_result",
        "protocol_version",
        "server_info",
        "server_capabilities",
        "instructions",
    ):
        with pytest.raises(NotConnectedError, match="mine is not connected"):
            getattr(client, known)
    stats = dataclasses.asdict(client.stats())
    assert set(stats.values()) == {0}


def test_a_new_client_has_the_configuration_and_nothing_else() -> None:
    info = Implementation(name="me", version="1")
    client = Client(
        SERVER, name="mine", timeouts=Timeouts(call=1), restart=Restart(max_attempts=2), client_info=info
    )
    other = client.new()
    assert other is not client
    assert type(other) is type(client)
    assert other._settings is client._settings
    assert other._keeper is not client._keeper
    assert other._doors is not client._doors
    assert other.name == "mine"
    assert other.transport is client.transport


def test_a_handler_set_on_one_client_is_not_set_on_another() -> None:
    client = Client(SERVER, roots=["/a"])
    other = client.new()
    before = other._settings
    client.set_roots(["/b"])
    client.set_sampling_callback(answer)
    client.set_elicitation_callback(answer)
    assert other._settings is before
    assert client.new()._settings is client._settings, "a copy made later has it"


def test_a_new_client_of_a_subclass_is_one() -> None:
    class Mine(Client):
        pass

    assert type(Mine(SERVER).new()) is Mine


@pytest.mark.parametrize("setter", ["set_sampling_callback", "set_elicitation_callback", "set_roots"])
def test_a_handler_set_later_is_checked_when_it_is_set(setter: str) -> None:
    client = Client(SERVER)
    before = client._settings
    with pytest.raises(TypeError):
        getattr(client, setter)(7)
    assert client._settings is before


@pytest.mark.parametrize("source", [None, 7], ids=repr)
def test_what_is_no_server_makes_no_client(source: Any) -> None:
    with pytest.raises(TypeError, match="cannot tell how to reach"):
        Client(source)
