"""Functions that raise when they are called: what a bug looks like to whoever calls them."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import pytest


def named(value: Any) -> str:
    """The name of a test's parameter that is a module, a class or a function."""
    return getattr(value, "__name__", str(value)).removeprefix("anyio_mcp.transports.")


@dataclass
class Trap:
    """A function that raises the next time it is called, once it is armed."""

    armed: bool = False
    sprung: int = 0
    late: bool = False
    """It does what it is for, and raises then: what it would leave open is not the question here."""

    def set(self, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> None:
        real = inspect.getattr_static(owner, name)
        assert callable(real)

        def spring() -> None:
            if self.armed:
                self.armed = False
                self.sprung += 1
                raise ZeroDivisionError("a bug")

        if inspect.iscoroutinefunction(real):

            async def later(*args: Any, **kwargs: Any) -> Any:
                if not self.late:
                    spring()
                result = await real(*args, **kwargs)
                spring()
                return result

            monkeypatch.setattr(owner, name, later)
            return

        def now(*args: Any, **kwargs: Any) -> Any:
            spring()
            return real(*args, **kwargs)

        monkeypatch.setattr(owner, name, now)
