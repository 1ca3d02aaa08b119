"""Whether the results of one session's tools are what the tools promise.

Owns how the schema for a result is obtained, the one budget for looking at the result, and who is told what
could not be checked. What conforming means is `_schema`'s, what becomes of a result `results`'.

What a call comes to does not depend on what was listed before it:

* a result without structured content is a result, whether or not a schema is known;
* structured content is held against the schema that the server lists for its tool. If it does not fit, it is
  held against what the server lists now: what was known may be out of date;
* if the tools have changed during the call, or the caller has asked for a version of the tool, a schema that
  does not fit may be that of another version: then the result is unchecked, not wrong.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, TypeVar, final

import anyio
from mcp.types import CallToolResult as RawToolResult
from mcp.types import Tool

from anyio_mcp._schema import Budget, OutOfBudgetError, UncheckableError, Validator, describe, in_slices
from anyio_mcp._session.catalog import ToolCatalog
from anyio_mcp._session.watchdog import CallDeadline
from anyio_mcp._text import get_logger
from anyio_mcp.results import CallToolResult, ResultSchemaError, result_steps, tool_result

logger = get_logger(__name__)

_T = TypeVar("_T")

_LISTING_PATIENCE: Final = 30.0
"""Seconds the list of tools may take when a result that is here already waits for its schema. No more than
half of what its call has left, as the check after it: a tool that has run should not lose its result."""

_MAX_WARNED: Final = 1_000
"""Tools that a warning was logged for in this session. Past that there are no more warnings."""

_MAX_WEIGHT: Final = 50_000
"""Steps that were spent on reading the schemas of this session: some megabytes. Past that the one used
longest ago is read again when it is needed."""


@final
@dataclass(frozen=True, slots=True)
class _Verdict:
    """What came of holding a result against a schema: wrong, unchecked, or neither."""

    schema: dict[str, Any] | None = None
    wrong: str | None = None
    unchecked: str | None = None


@final
class ResultChecker:
    """Checks the results of one session's tools, and makes public results of them."""

    __slots__ = ("_catalog", "_list_again", "_strict", "_validators", "_warned", "_weight")

    def __init__(
        self, catalog: ToolCatalog, list_again: Callable[[], Awaitable[list[Tool]]], *, strict: bool
    ) -> None:
        self._catalog = catalog
        self._list_again = list_again
        self._strict = strict
        self._validators: OrderedDict[str, Validator] = OrderedDict()
        self._weight = 0
        self._warned: set[str] = set()

    async def present(
        self,
        name: str | None,
        raw: RawToolResult,
        deadline: CallDeadline,
        *,
        result_type: type[Any] | None = None,
        is_doubtful: Callable[[], bool] = lambda: False,
    ) -> CallToolResult[Any]:
        """The public result of a tool that ran; `name` is None if nobody knows which.

        Raises `ResultSchemaError` for a result that is not what it has to be, and `DeadlineExceededError`
        when that was found out too late. `is_doubtful` says whether the schema may be of another version.
        """
        budget = Budget()
        verdict = _Verdict()
        if name is not None and not raw.is_error:
            verdict = await self._verdict(name, raw, deadline, budget, is_doubtful)
        wrong = verdict.wrong
        if verdict.unchecked is not None:
            self._warn(name, verdict.unchecked)
            if self._strict:
                wrong = f"the result could not be checked: {verdict.unchecked}"
        if wrong is not None:
            raise ResultSchemaError(wrong, result=_unconverted(raw, verdict.unchecked))
        result = await in_slices(
            result_steps(
                raw,
                output_schema=verdict.schema,
                result_type=result_type,
                unchecked=verdict.unchecked,
                budget=budget,
            ),
            budget,
            until=deadline.expires,
        )
        if anyio.current_time() > deadline.expires:
            raise deadline.exceeded("checking the result")
        return result

    async def _verdict(
        self,
        name: str,
        raw: RawToolResult,
        deadline: CallDeadline,
        budget: Budget,
        is_doubtful: Callable[[], bool],
    ) -> _Verdict:
        if raw.structured_content is None and not self._strict:
            return _Verdict()
        try:
            tool = await _with_patience(partial(self._catalog.find, name, deadline), deadline)
        except Exception as error:  # no failure to list may cost the caller a result that is here
            return _Verdict(unchecked=f"its tool could not be listed: {error}")
        verdict = await self._held_against(tool, raw, deadline, budget)
        if verdict.wrong is not None:
            verdict = await self._held_against_news(name, verdict, raw, deadline, budget)
        if verdict.wrong is not None and is_doubtful():
            return _Verdict(unchecked="the schema it does not fit may be that of another version of the tool")
        return verdict

    async def _held_against(
        self, tool: Tool | None, raw: RawToolResult, deadline: CallDeadline, budget: Budget
    ) -> _Verdict:
        if tool is None:
            return _Verdict(unchecked="the server does not list its tool")
        schema = tool.output_schema
        if schema is None:
            return _Verdict()
        if raw.structured_content is None:
            return _Verdict(
                schema, wrong="the tool did not return structured content, which its schema promises"
            )
        validator = self._validator(tool.name, schema)
        until = anyio.current_time() + deadline.remaining() / 2
        try:
            failure = await in_slices(validator.check(raw.structured_content, budget), budget, until=until)
        except (UncheckableError, OutOfBudgetError) as error:
            return _Verdict(schema, unchecked=f"checking it against its schema: {error}")
        finally:
            self._keep(tool.name, validator)
        if failure is None:
            return _Verdict(schema)
        return _Verdict(schema, wrong=f"the structured content does not fit its schema: {describe(failure)}")

    async def _held_against_news(
        self, name: str, before: _Verdict, raw: RawToolResult, deadline: CallDeadline, budget: Budget
    ) -> _Verdict:
        """The verdict by what the server lists now, or `before` if that is the same or is not to be had."""
        changes = self._catalog.changes
        try:
            tools = await _with_patience(self._list_again, deadline)
        except Exception as error:
            logger.debug("the tools could not be listed again: %s", error)
            return before
        if changes == self._catalog.changes:
            self._catalog.learn(tools)
        tool = next((tool for tool in tools if tool.name == name), None)
        if tool is not None and tool.output_schema == before.schema:
            return before
        return await self._held_against(tool, raw, deadline, budget)

    def _validator(self, name: str, schema: dict[str, Any]) -> Validator:
        """The one that has read this very schema before, or a new one. `_keep` it afterwards."""
        kept = self._validators.pop(name, None)
        if kept is not None:
            self._weight -= kept.weight
            if kept.schema is schema:
                return kept
        return Validator(schema)

    def _keep(self, name: str, validator: Validator) -> None:
        replaced = self._validators.pop(name, None)  # of another call that checked at the same time
        self._weight += validator.weight - (0 if replaced is None else replaced.weight)
        self._validators[name] = validator
        while self._weight > _MAX_WEIGHT:
            _, oldest = self._validators.popitem(last=False)
            self._weight -= oldest.weight

    def _warn(self, name: str | None, reason: str) -> None:
        if name is not None and name not in self._warned and len(self._warned) < _MAX_WARNED:
            self._warned.add(name)
            logger.warning("results of %r are unchecked: %s", name[:100], reason)


async def _with_patience(ask: Callable[[], Awaitable[_T]], deadline: CallDeadline) -> _T:
    """What `ask` brings. Raises `TimeoutError` when that takes more than a result here can wait for."""
    with anyio.fail_after(min(_LISTING_PATIENCE, deadline.remaining() / 2)):
        return await ask()


def _unconverted(raw: RawToolResult, unchecked: str | None) -> CallToolResult[Any]:
    return replace(tool_result(raw, output_schema=None), data=None, unchecked=unchecked)
