"""What the package promises to those who import it, and to their type checkers."""

from __future__ import annotations

from importlib.resources import files

import anyio_mcp


def test_the_package_says_that_it_is_typed() -> None:
    assert files("anyio_mcp").joinpath("py.typed").is_file()


def test_every_public_name_exists_once() -> None:
    names = anyio_mcp.__all__
    assert isinstance(names, tuple)
    assert len(set(names)) == len(names)
    for name in names:
        assert getattr(anyio_mcp, name) is not None


def test_every_public_class_says_what_it_is_for() -> None:
    for name in anyio_mcp.__all__:
        public = getattr(anyio_mcp, name)
        if isinstance(public, type) and public.__module__.startswith("anyio_mcp."):
            assert public.__doc__, name
