"""The extensions a user gives a client (SEP-2133): checked when given, advertised, and finished here.

A claim is a further shape that the answer to `tools/call` may have. What a shape means only its
extension knows: it makes the tool's ordinary result of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Self, cast, final

from mcp.client import ClaimContext, ClientExtension, ClientSession, NotificationBinding, ResultClaim
from mcp.shared.extension import validate_extension_identifier
from mcp.types import CallToolResult, InputRequiredResult, Result
from pydantic import BaseModel, Discriminator, Tag, TypeAdapter

from anyio_mcp._session.tasks.dialects import EXTENSION as TASKS
from anyio_mcp._session.tasks.extension import STATUS_METHODS
from anyio_mcp._session.tasks.starting import CreatedTask
from anyio_mcp._session.watchdog import CallDeadline, SessionFailure, guard

_PLAIN: Final = "plain"
_OURS: Final = "this library's own"


@final
@dataclass(frozen=True, slots=True, eq=False)
class Extensions:
    """What a client's extensions amount to."""

    advertised: Mapping[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    claims: Mapping[str, tuple[ResultClaim[Any], ...]] = field(
        default_factory=dict[str, tuple[ResultClaim[Any], ...]]
    )
    bindings: tuple[NotificationBinding[Any], ...] = ()

    @classmethod
    def of(cls, given: Sequence[ClientExtension] | None) -> Self:
        """Raises `TypeError` for what is no sequence of extensions, and `ValueError` for an extension
        without a valid identifier, or one that wants what another has already."""
        if isinstance(given, str | Mapping) or not isinstance(given, Iterable | None):
            raise TypeError("extensions= takes a sequence of mcp.client.ClientExtension")
        owners: dict[str, str] = {
            "the identifier " + repr(TASKS): _OURS,
            "resultType 'task'": _OURS,
            **{f"the notification {method!r}": _OURS for method in STATUS_METHODS},
        }
        advertised: dict[str, dict[str, Any]] = {}
        claims: dict[str, tuple[ResultClaim[Any], ...]] = {}
        bindings: list[NotificationBinding[Any]] = []
        for extension in given or ():
            if not isinstance(extension, ClientExtension):
                kind = type(cast("object", extension)).__name__
                raise TypeError(f"extensions= takes mcp.client.ClientExtension, not {kind}")
            identifier = getattr(extension, "identifier", None)
            if identifier is None:
                raise ValueError(f"{type(extension).__name__} has no identifier")
            validate_extension_identifier(identifier, owner=type(extension).__name__)
            own_claims = tuple(extension.claims())
            own_bindings = tuple(extension.notifications())
            for wish in (
                f"the identifier {identifier!r}",
                *(f"resultType {claim.result_type!r}" for claim in own_claims),
                *(f"the notification {binding.method!r}" for binding in own_bindings),
            ):
                if wish in owners:
                    raise ValueError(
                        f"extension {identifier!r} wants {wish}, which is {owners[wish]} already"
                    )
                owners[wish] = f"extension {identifier!r}'s"
            advertised[identifier] = extension.settings()
            if own_claims:
                claims[identifier] = own_claims
            bindings += own_bindings
        return cls(advertised, claims, tuple(bindings))

    def answers(self, version: str | None) -> TypeAdapter[Any]:
        """What may come back from `tools/call`: an ordinary result, a task, or a shape that is claimed."""
        models: dict[str, type[Result]] = {
            claim.result_type: claim.model
            for each in self.claims.values()
            for claim in each
            if claim.protocol_versions is None or version in claim.protocol_versions
        }
        return _adapter(models) if models else _UNCLAIMED

    async def finish(
        self,
        answer: BaseModel,
        *,
        session: ClientSession,
        name: str,
        failure: SessionFailure,
        deadline: CallDeadline,
    ) -> CallToolResult:
        """The tool's ordinary result. Made by the extension if it is its shape, within the call's deadline.

        What the extension raises passes through; the verb takes a `ValidationError` for the server's fault.
        """
        if isinstance(answer, CallToolResult):
            return answer
        claim = next(claim for each in self.claims.values() for claim in each if claim.model is type(answer))
        context = ClaimContext(
            session=session, tool_name=name, read_timeout_seconds=_seconds(deadline.remaining())
        )
        result: CallToolResult
        with guard(failure, deadline, what=f"finishing the result {claim.result_type!r}"):
            result = await claim.resolve(cast("Result", answer), context)
        return result


def _adapter(models: Mapping[str, type[Result]]) -> TypeAdapter[Any]:
    arms = {"task": CreatedTask, **models}

    def kind(value: object) -> str:
        """Which arm a result belongs to."""
        tag = cast("Mapping[str, object]", value).get("resultType") if isinstance(value, Mapping) else None
        return tag if isinstance(tag, str) and tag in arms else _PLAIN

    union: Any = Annotated[CallToolResult | InputRequiredResult, Tag(_PLAIN)]
    for tag, model in arms.items():
        union |= Annotated[model, Tag(tag)]
    answer: Any = Annotated[union, Discriminator(kind)]
    return TypeAdapter[Any](answer)


_UNCLAIMED: Final = _adapter({})
"""Of most clients. Made once: it takes longer than a call."""


def _seconds(remaining: float) -> float | None:
    return None if remaining == float("inf") else remaining
