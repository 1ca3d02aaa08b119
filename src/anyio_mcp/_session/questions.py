"""What a server says unasked, read as far as it can be: an odd member does not spoil what it is in.

Plain functions from JSON to JSON that the SDK's models can read. What cannot be read without losing what it
is about stays as it is, for the models to refuse: a question with half of its text is another question.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar, cast, get_args

from mcp.shared.dispatcher import coerce_request_id
from mcp.shared.subscriptions import SUBSCRIPTION_ID_META_KEY
from mcp.types import (
    InputRequest,
    InputRequiredResult,
    LoggingLevel,
    ServerNotification,
    SubscriptionFilter,
)
from mcp.types.methods import (
    INPUT_REQUIRED_METHODS,
    parse_server_notification,
    parse_server_request,
    validate_server_result,
)
from pydantic import TypeAdapter, ValidationError

from anyio_mcp._session.pruning import read_model, read_pruned

_T = TypeVar("_T")

_ACKNOWLEDGED: Final = "notifications/subscriptions/acknowledged"
_LOG: Final = "notifications/message"

_WHOLE: Final = frozenset(("messages", "inputRequests", "properties"))
"""Members that nothing is left out of: an answer to half a conversation or half a form is none, and a
question that nobody answers would be asked again."""

_MOST_ERRORS: Final = 50
"""What has more errors than that is not mended: the list of them is made for all."""

_KNOWN_LEVELS: Final = frozenset[object](get_args(LoggingLevel))
_LEVELS: Final[Mapping[object, str]] = {
    "trace": "debug",
    "warn": "warning",
    "err": "error",
    "fatal": "critical",
    "panic": "emergency",
}
"""What other systems call the levels of a log. Any other is "info": the words are worth more than it."""

_QUESTION: Final = TypeAdapter[InputRequest](InputRequest)


def readable_request(method: str, version: str, params: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """The params of a request of the server, without what would have it refused and may be missing; `params`
    itself if there is nothing of the kind, or no help."""
    try:
        parse_server_request(method, version, params)
        return params
    except KeyError:
        return params
    except ValidationError as error:
        if params is None or error.error_count() > _MOST_ERRORS:
            return params

    def parse(body: dict[str, Any]) -> dict[str, Any]:
        parse_server_request(method, version, body.get("params"))
        return body

    body, _ = read_pruned(parse, _mended({"params": dict(params)}), whole=_WHOLE)
    return params if body is None else body.get("params")


def read_notification(method: str, version: str, params: Mapping[str, Any] | None) -> ServerNotification:
    """A notification, as far as it can be read. Raises `KeyError` for one that this version does not know,
    and `ValidationError` for one that says nothing without what is wrong in it."""
    try:
        return cast("ServerNotification", parse_server_notification(method, version, params))
    except ValidationError as error:
        if params is None or error.error_count() > _MOST_ERRORS:
            raise
        mended = dict(params)
        if method == _LOG and "data" in params:
            level: object = params.get("level")
            known = level.lower() if isinstance(level, str) else None
            mended["level"] = known if known in _KNOWN_LEVELS else _LEVELS.get(known, "info")

        def parse(body: dict[str, Any]) -> ServerNotification:
            return cast("ServerNotification", parse_server_notification(method, version, body.get("params")))

        notification, _ = read_pruned(parse, {"params": mended})
        if notification is None:
            raise
        return notification


def readable_event(method: str, params: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """A notification as the SDK sorts it to the subscription it belongs to, if it belongs to one."""
    meta: object = (params or {}).get("_meta")
    if params is None or not isinstance(meta, dict) or SUBSCRIPTION_ID_META_KEY not in meta:
        return params
    known = cast("dict[str, Any]", meta)
    subscription: object = known[SUBSCRIPTION_ID_META_KEY]
    if isinstance(subscription, str):
        known = {**known, SUBSCRIPTION_ID_META_KEY: coerce_request_id(subscription)}
    if method != _ACKNOWLEDGED:
        return {**params, "_meta": known}
    # Whoever waits for it must not wait for a better one.
    honored, _ = read_model(SubscriptionFilter, params.get("notifications"))
    agreed = {} if honored is None else honored.model_dump(by_alias=True, mode="json", exclude_none=True)
    return {**params, "_meta": known, "notifications": agreed}


def readable_input(method: str, version: str, raw: dict[str, Any]) -> dict[str, Any]:
    """A result that asks for input, without what would have it refused and may be missing."""
    known = dict(raw)
    if known.get("requestState") in ([], {}):  # "" is a state like any other
        del known["requestState"]
    elif not isinstance(known.get("requestState", ""), str):
        return raw  # without it the server would not know what the answers are about
    questions: object = known.get("inputRequests")
    if isinstance(questions, dict):
        known["inputRequests"] = {
            key: _mended(cast("dict[str, Any]", each)) if isinstance(each, dict) else each
            for key, each in cast("dict[str, object]", questions).items()
        }

    def validate(item: dict[str, Any]) -> dict[str, Any]:
        # The models of the version are the stricter ones; not every method has one that may ask.
        if method in INPUT_REQUIRED_METHODS:
            validate_server_result(method, version, item)
        InputRequiredResult.model_validate(item, by_name=False)
        return item

    readable = _readable(validate, known)
    return raw if readable is None else readable


def read_question(raw: object) -> InputRequest | None:
    """A question of a task, as far as it can be read; None if it cannot be answered."""
    if not isinstance(raw, dict):
        return None

    def validate(item: dict[str, Any]) -> InputRequest:
        return _QUESTION.validate_python(item, by_name=False)

    return _readable(validate, _mended(cast("dict[str, Any]", raw)))


def _readable(validate: Callable[[dict[str, Any]], _T], question: dict[str, Any]) -> _T | None:
    """What `validate` makes of `question`, without what may be missing; None if that is no help."""
    try:
        return validate(question)
    except ValidationError as error:
        if error.error_count() > _MOST_ERRORS:
            return None
    found, _ = read_pruned(validate, question, whole=_WHOLE)
    return found


def _mended(question: dict[str, Any]) -> dict[str, Any]:
    """`question` with objects where PHP has written empty arrays, and without what is null."""
    params: object = question.get("params")
    if not isinstance(params, dict):
        return question if params else {name: each for name, each in question.items() if name != "params"}
    known = {name: each for name, each in cast("dict[str, Any]", params).items() if each is not None}
    schema: object = known.get("requestedSchema")
    if schema == []:
        known["requestedSchema"] = {"type": "object", "properties": {}}
    elif isinstance(schema, dict):
        form: dict[str, Any] = {"type": "object", **cast("dict[str, Any]", schema)}
        if not form.get("properties"):
            form["properties"] = {}
        known["requestedSchema"] = form
    return {**question, "params": known}
