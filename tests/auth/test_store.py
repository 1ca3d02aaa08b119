"""Where tokens are kept: for this user only, whole or not at all, and never the reason of a failure."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp.shared.auth import OAuthClientInformationFull, OAuthToken

from anyio_mcp import FileTokenStore, MemoryTokenStore, OAuth, ServerTokens, TokenStore
from anyio_mcp.auth.store import MAX_FILE_BYTES, default_directory, server_key

pytestmark = pytest.mark.anyio

URL = "https://example.org/mcp"


@pytest.fixture(params=["memory", "file"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> TokenStore:
    return MemoryTokenStore() if request.param == "memory" else FileTokenStore(tmp_path / "tokens")


# --- what every store does -------------------------------------------------------------------------


async def test_a_store_gives_back_what_it_was_given(store: TokenStore) -> None:
    assert await store.get(URL) is None
    await store.set(URL, "one")
    await store.set(URL, "twö")
    await store.set("https://example.org/other", "three")
    assert await store.get(URL) == "twö"
    await store.delete(URL)
    await store.delete(URL)
    assert await store.get(URL) is None
    assert await store.get("https://example.org/other") == "three"


async def test_a_store_shows_none_of_what_it_keeps(store: TokenStore) -> None:
    await store.set(URL, "hush")
    assert "hush" not in f"{store!r} {store}"


def test_a_server_is_the_same_however_its_url_is_spelled() -> None:
    same = {"https://example.org/mcp", "https://EXAMPLE.org:443/mcp", "https://user:hush@example.org/mcp#x"}
    assert len({server_key(url) for url in same}) == 1
    others = {"http://example.org/mcp", "https://example.org/mcp/", "https://example.org:444/mcp"}
    assert len({server_key(url) for url in {*others, "https://example.org/mcp?a=1", URL}}) == 5
    assert server_key("https://example.org") == server_key("https://example.org/")


# --- files -----------------------------------------------------------------------------------------


async def test_only_this_user_can_read_a_token_file(tmp_path: Path) -> None:
    previous = os.umask(0)
    try:
        store = FileTokenStore(tmp_path / "deep" / "tokens")
        await store.set(URL, "hush")
    finally:
        os.umask(previous)
    assert store.path(URL).stat().st_mode & 0o777 == 0o600
    assert store.directory.stat().st_mode & 0o777 == 0o700
    assert "example" not in store.path(URL).name
    assert [path.name for path in store.directory.iterdir()] == [store.path(URL).name]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b"null",
        b"{}",
        b'{"format": "anyio-mcp tokens 1"}',
        b'{"format": "anyio-mcp tokens 1", "record": 5}',
        b'{"format": "of somebody else", "record": "hush"}',
        b"[" * 100_000,
        b" " * (MAX_FILE_BYTES + 1),
        b'{"format": "anyio-mcp tokens 1", "record": "hush',
    ],
)
async def test_a_damaged_or_foreign_file_counts_as_none_and_is_replaced(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    store = FileTokenStore(tmp_path)
    store.path(URL).touch(mode=0o600)
    store.path(URL).write_bytes(content)
    assert await store.get(URL) is None
    assert "is ignored: it is damaged, or of another program" in caplog.text
    assert "hush" not in caplog.text
    await store.set(URL, "good")
    assert await store.get(URL) == "good"


async def test_a_file_others_have_access_to_is_not_trusted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = FileTokenStore(tmp_path)
    await store.set(URL, "hush")
    store.path(URL).chmod(0o640)
    assert await store.get(URL) is None
    assert "others have access to it" in caplog.text
    await store.set(URL, "again")
    assert store.path(URL).stat().st_mode & 0o777 == 0o600
    assert await store.get(URL) == "again"


async def test_a_link_or_a_pipe_in_the_place_of_a_file_is_no_token_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = FileTokenStore(tmp_path)
    other = tmp_path / "other"
    other.write_text(json.dumps({"format": "anyio-mcp tokens 1", "record": "theirs"}))
    other.chmod(0o600)
    store.path(URL).symlink_to(other)
    assert await store.get(URL) is None
    store.path(URL).unlink()
    os.mkfifo(store.path(URL), 0o600)
    with anyio.fail_after(5):
        assert await store.get(URL) is None
    assert "it is no regular file" in caplog.text
    assert "theirs" not in caplog.text
    await store.set(URL, "mine")
    assert await store.get(URL) == "mine"


async def test_a_directory_others_can_write_to_takes_no_tokens(tmp_path: Path) -> None:
    directory = tmp_path / "open"
    directory.mkdir()
    directory.chmod(0o777)
    with pytest.raises(PermissionError, match="others can write"):
        await FileTokenStore(directory).set(URL, "hush")
    assert list(directory.iterdir()) == []


async def test_a_write_that_fails_leaves_the_old_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FileTokenStore(tmp_path)
    await store.set(URL, "old")

    def full(_: int) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="no space"):
        await store.set(URL, "new")
    assert await store.get(URL) == "old"
    assert len(list(tmp_path.iterdir())) == 1


async def test_readers_and_writers_side_by_side_see_whole_records(tmp_path: Path) -> None:
    store = FileTokenStore(tmp_path)
    records = [str(number) * 10_000 for number in range(5)]
    await store.set(URL, records[0])

    async def write(record: str) -> None:
        for _ in range(5):
            await store.set(URL, record)

    async def read() -> None:
        for _ in range(20):
            assert await store.get(URL) in records

    with anyio.fail_after(20):
        async with anyio.create_task_group() as tg:
            for record in records:
                tg.start_soon(write, record)
            tg.start_soon(read)
    assert len(list(tmp_path.iterdir())) == 1


def test_the_default_directory_is_the_users_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert default_directory() == tmp_path / "anyio-mcp" / "tokens"
    assert FileTokenStore().directory == default_directory()
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_directory() == tmp_path / ".local" / "state" / "anyio-mcp" / "tokens"
    monkeypatch.setattr("sys.platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path))
    assert default_directory() == tmp_path / "anyio-mcp" / "tokens"


# --- records ---------------------------------------------------------------------------------------


async def test_the_storage_of_a_server_is_what_the_providers_of_the_sdk_take(store: TokenStore) -> None:
    storage = ServerTokens(store, URL)
    assert await storage.get_tokens() is None
    assert await storage.get_client_info() is None
    tokens = OAuthToken(access_token="hush", refresh_token="hush hush", expires_in=60)
    client = OAuthClientInformationFull(client_id="me", client_secret="hush")
    await storage.set_client_info(client)
    await storage.set_tokens(tokens)
    again = ServerTokens(store, URL)
    assert await again.get_tokens() == tokens
    assert await again.get_client_info() == client
    assert "hush" not in f"{storage!r} {again} {again.record!r} {again.record}"


async def test_a_token_that_expired_and_cannot_be_refreshed_is_none(store: TokenStore) -> None:
    storage = ServerTokens(store, URL)
    await storage.set_tokens(OAuthToken(access_token="a", expires_in=0))
    assert await storage.get_tokens() is None
    await storage.set_tokens(OAuthToken(access_token="a", refresh_token="r", expires_in=0))
    assert await storage.get_tokens() is not None
    await storage.set_tokens(OAuthToken(access_token="a"))
    assert await storage.get_tokens() is not None


# --- the settings ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"scopes": 'a "b"'}, ValueError),
        ({"scopes": ["a b"]}, ValueError),
        ({"scopes": [5]}, ValueError),
        ({"client_name": ""}, TypeError),
        ({"client_name": None}, TypeError),
        ({"client_id": 5}, TypeError),
        ({"client_secret": "s"}, ValueError),
        ({"client_auth": "none"}, ValueError),
        ({"client_metadata_url": "http://example.org/me"}, ValueError),
        ({"client_metadata_url": "https://example.org/"}, ValueError),
        ({"callback_port": "80"}, TypeError),
        ({"callback_port": True}, TypeError),
        ({"callback_port": 0}, ValueError),
        ({"callback_port": 65536}, ValueError),
        ({"open_browser": "firefox"}, TypeError),
        ({"token_store": "tokens.json"}, TypeError),
    ],
)
def test_settings_that_could_never_work_are_refused_at_once(
    options: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error, match="OAuth"):
        OAuth(**options)


def test_settings_show_no_secret(tmp_path: Path) -> None:
    auth = OAuth(client_id="me", client_secret="hush", token_store=FileTokenStore(tmp_path))
    assert repr(auth) == f"OAuth(client_id='me', token_store=FileTokenStore({str(tmp_path)!r}))"
    assert OAuth(scopes="a b", token_store=MemoryTokenStore()).scopes == ("a", "b")
