"""What a server answers, read as far as it can be: one odd item does not spoil the others.

Everything that the SDK's session sends passes `LenientDispatcher`. The lists of an answer, and what may be
any JSON, are taken out of it before the SDK's models see it: they would refuse a whole list for one item,
and hold up the event loop for a long one. They are read here, item by item, and put into the result.

A member that is null, and an empty array where an object belongs (PHP knows no other), is not there.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn, TypeVar, cast, final

import anyio
import anyio.abc
import anyio.lowlevel
from mcp.shared.dispatcher import (
    CallOptions,
    DispatchContext,
    Dispatcher,
    OnNotify,
    OnNotifyIntercept,
    OnRequest,
)
from mcp.shared.inbound import MCP_PROTOCOL_VERSION_HEADER
from mcp.shared.transport_context import TransportContext
from mcp.types import (
    SERVER_INFO_META_KEY,
    AudioContent,
    BlobResourceContents,
    CallToolResult,
    Completion,
    DiscoverResult,
    EmbeddedResource,
    GetPromptResult,
    ImageContent,
    Implementation,
    InitializeResult,
    Prompt,
    PromptMessage,
    Resource,
    ResourceLink,
    ResourceTemplate,
    TextContent,
    TextResourceContents,
    Tool,
)
from mcp.types.methods import CACHEABLE_METHODS
from mcp.types.version import HANDSHAKE_PROTOCOL_VERSIONS, MODERN_PROTOCOL_VERSIONS
from pydantic import BaseModel, TypeAdapter, ValidationError

from anyio_mcp._session.pruning import read_model
from anyio_mcp._session.questions import readable_event, readable_input, readable_request
from anyio_mcp._session.watchdog import current_deadline
from anyio_mcp._text import get_logger
from anyio_mcp.content import OddMessage, OddPromptResult, OddToolResult, UnknownContent
from anyio_mcp.errors import RequestFailedError

logger = get_logger(__name__)

MAX_TTL_MS: Final = 2**53
"""What `ttlMs` is at most taken for: the largest number that JSON carries without loss everywhere."""

_AT_A_TIME: Final = 64
"""Items read between two checkpoints."""

_NAMED: Final = 5
_NAME_LENGTH: Final = 80
"""How many odd items a warning names, and with how many characters of the server's text."""

_BLOCKS: Final[Mapping[str, type[BaseModel]]] = {
    "text": TextContent,
    "image": ImageContent,
    "audio": AudioContent,
    "resource_link": ResourceLink,
    "resource": EmbeddedResource,
}

_MAPS: Final = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
"""Members of a schema that are objects. An empty one is an array in the JSON of PHP."""

_Model = TypeVar("_Model", bound=BaseModel)

_Reader = Callable[["Answer", dict[str, Any], Mapping[str, Any]], Awaitable[None]]


@final
@dataclass(slots=True, eq=False)
class Answer:
    """One answer on its way to the caller."""

    method: str = ""
    raw: dict[str, Any] = field(default_factory=dict[str, Any])
    """As the server sent it."""
    fields: dict[str, Any] = field(default_factory=dict[str, Any])
    """What was taken out of it and read here, by attribute of the result."""
    is_widened: bool = False
    """Something in `fields` is more than the protocol's model of the result can hold."""
    odd: list[str] = field(default_factory=list[str])
    """Names of what was left out or read in part, the first of them."""
    odd_count: int = 0

    def note(self, what: str) -> None:
        """One more is odd."""
        self.odd_count += 1
        if len(self.odd) < _NAMED:
            self.odd.append(what)

    def complete(self, result: _Model) -> _Model:
        """`result`, with what was taken out of the answer put back."""
        if self.odd:
            more = f" and {self.odd_count - len(self.odd)} more" if self.odd_count > len(self.odd) else ""
            logger.warning(
                "the answer to %r breaks the protocol; left out, or read as far as possible: %s%s",
                self.method,
                ", ".join(self.odd),
                more,
            )
        if not self.fields:
            return result
        if self.is_widened:
            result = cast("_Model", _widened(result))
        for name, value in self.fields.items():
            setattr(result, name, value)
        return result

    def unreadable(self, error: ValidationError) -> NoReturn:
        """Raise that the answer is none to this question. It goes with the error: a tool may have run."""
        text = f"the server's answer to {self.method!r} does not conform to the protocol: {_brief(error)}"
        raise RequestFailedError(text, reason="violation", result=self.raw, cause=error) from error


current_answer: ContextVar[Answer | None] = ContextVar("anyio_mcp_answer", default=None)
"""Where the dispatcher leaves what it has read, for the request that is made in this context."""


@final
class LenientDispatcher(Dispatcher[TransportContext]):
    """Another dispatcher; what its server answers and asks is read leniently."""

    def __init__(
        self,
        inner: Dispatcher[TransportContext],
        *,
        version: Callable[[], str | None],
        default_ttl_ms: int,
    ) -> None:
        self._inner = inner
        self._version = version
        self._default_ttl_ms = default_ttl_ms
        self.offer: str | None = None
        """The version that `initialize` offers, instead of the newest."""

    async def send_raw_request(
        self, method: str, params: Mapping[str, Any] | None, opts: CallOptions | None = None
    ) -> dict[str, Any]:
        """Send a request; the answer as the SDK's models can read it."""
        if method == "initialize" and self.offer is not None:
            params = {**(params or {}), "protocolVersion": self.offer}
        raw = await self._inner.send_raw_request(method, params, opts)
        headers: Mapping[str, str] = (opts or {}).get("headers") or {}
        is_modern = headers.get(MCP_PROTOCOL_VERSION_HEADER) in MODERN_PROTOCOL_VERSIONS
        awaited = current_answer.get()
        answer = awaited or Answer()
        known = await _take(
            answer, method, params or {}, raw, is_modern=is_modern, default_ttl_ms=self._default_ttl_ms
        )
        # Asked without a model, as by the SDK's probe: there is no result to put anything back into.
        return (
            known
            if awaited is not None or "meta" not in answer.fields
            else {**known, "_meta": answer.fields["meta"]}
        )

    async def notify(
        self, method: str, params: Mapping[str, Any] | None, opts: CallOptions | None = None
    ) -> None:
        await self._inner.notify(method, params, opts)

    async def run(
        self,
        on_request: OnRequest,
        on_notify: OnNotify,
        on_notify_intercept: OnNotifyIntercept | None = None,
        *,
        task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
    ) -> None:
        async def take_request(
            context: DispatchContext[TransportContext], method: str, params: Mapping[str, Any] | None
        ) -> dict[str, Any]:
            try:
                return await on_request(context, method, params)
            except ValidationError:
                # Either this is what it raises before any handler is called, or there is nothing to mend.
                version = self._version() or HANDSHAKE_PROTOCOL_VERSIONS[-1]
                readable = readable_request(method, version, params)
                if readable is params:
                    raise
            return await on_request(context, method, readable)

        def intercept(method: str, params: Mapping[str, Any] | None) -> bool:
            return on_notify_intercept is not None and on_notify_intercept(
                method, readable_event(method, params)
            )

        await self._inner.run(take_request, on_notify, intercept, task_status=task_status)


async def read_result(method: str, raw: dict[str, Any], model: type[_Model] | TypeAdapter[_Model]) -> _Model:
    """A result that came another way than as the answer to `method`: as the result of a task.

    Raises `RequestFailedError` (`violation`), which carries it.
    """
    answer = Answer()
    known = await _take(answer, method, {}, raw, is_modern=False, default_ttl_ms=0)
    try:
        if isinstance(model, TypeAdapter):
            result = model.validate_python(known, by_name=False)
        else:
            result = model.model_validate(known, by_name=False)
    except ValidationError as error:
        answer.unreadable(error)
    return answer.complete(result)


async def _take(
    answer: Answer,
    method: str,
    params: Mapping[str, Any],
    raw: dict[str, Any],
    *,
    is_modern: bool,
    default_ttl_ms: int,
) -> dict[str, Any]:
    """What the SDK's models are given of `raw`; the rest is read into `answer`."""
    answer.method, answer.raw = method, raw
    known = {name: value for name, value in raw.items() if value is not None}
    if is_modern and method in CACHEABLE_METHODS:
        known["ttlMs"] = _ttl(known.get("ttlMs"), default_ttl_ms)
        if known.get("cacheScope") not in ("public", "private"):
            known["cacheScope"] = "private"
    kind = known.get("resultType", "complete")
    if is_modern and kind != "complete":
        version = MODERN_PROTOCOL_VERSIONS[-1]
        return readable_input(method, version, known) if kind == "input_required" else known
    if "nextCursor" in known:
        _read_cursor(answer, known, is_modern=is_modern)
    read = _READERS.get(method)
    if read is None:
        return known
    meta: object = known.pop("_meta", None)
    if isinstance(meta, dict):
        answer.fields["meta"] = meta
    elif meta:
        answer.note("'_meta'")
    await read(answer, known, params)
    return known


def _read_cursor(answer: Answer, known: dict[str, Any], *, is_modern: bool) -> None:
    """Some servers have numbers for cursors, and 0 or -1 for none. In the modern era an empty text is one, by
    the letter of the specification."""
    cursor: object = known["nextCursor"]
    if isinstance(cursor, str) and (cursor or is_modern):
        return
    if isinstance(cursor, int | float) and cursor > 0 and (text := _text(cursor)):
        known["nextCursor"] = text
    else:
        del known["nextCursor"]
    if cursor and cursor != -1:
        answer.note("'nextCursor'")


# The results, by method


async def _read_tool_result(answer: Answer, known: dict[str, Any], params: Mapping[str, Any]) -> None:
    if "structuredContent" in known:
        answer.fields["structured_content"] = known.pop("structuredContent")
    is_error = known.get("isError")
    if is_error is not None and not isinstance(is_error, bool):
        answer.note("'isError'")
        known["isError"] = bool(is_error) and is_error not in ("false", "0")
    if "content" not in answer.raw and "structured_content" not in answer.fields and is_error is None:
        return  # nothing that a tool answers: for the models to refuse
    answer.fields["content"] = await _read_list(answer, known, "content", _block, single="type")


async def _read_prompt(answer: Answer, known: dict[str, Any], params: Mapping[str, Any]) -> None:
    if not isinstance(known.get("description", ""), str):
        answer.note("'description'")
        del known["description"]
    if "messages" in answer.raw:
        messages = await _read_list(answer, known, "messages", _messages, single="role")
        answer.fields["messages"] = [message for group in messages for message in group]


async def _read_contents(answer: Answer, known: dict[str, Any], params: Mapping[str, Any]) -> None:
    uri = params.get("uri")
    if "contents" in answer.raw:
        answer.fields["contents"] = await _read_list(
            answer, known, "contents", lambda answer, raw: _contents(answer, raw, uri), single="uri"
        )


async def _read_completion(answer: Answer, known: dict[str, Any], params: Mapping[str, Any]) -> None:
    if "completion" not in answer.raw:
        return
    raw: object = known.get("completion")
    completion: dict[str, Any] = (
        cast("dict[str, Any]", raw) if isinstance(raw, dict) else {"values": raw or []}
    )
    values = await _read_list(answer, dict(completion), "values", _value, single=None)
    rest, is_whole = read_model(Completion, {**completion, "values": []})
    if not is_whole:
        answer.note("'completion'")
    known["completion"] = {"values": []}
    answer.fields["completion"] = (rest or Completion(values=[])).model_copy(update={"values": values})


def _lister(
    member: str, attribute: str, model: type[BaseModel], prepare: Callable[[dict[str, Any]], dict[str, Any]]
) -> _Reader:
    def one(answer: Answer, raw: object) -> BaseModel | None:
        if not isinstance(raw, dict):
            return None
        found, is_whole = read_model(
            model, prepare(cast("dict[str, Any]", raw)), defaults=_DEFAULTS.get(member)
        )
        if found is not None and not is_whole:
            answer.note(_name(cast("dict[str, Any]", raw)))
        return found

    async def read(answer: Answer, known: dict[str, Any], params: Mapping[str, Any]) -> None:
        if member in answer.raw:
            answer.fields[attribute] = await _read_list(answer, known, member, one, single=None)

    return read


async def _read_initialized(answer: Answer, known: dict[str, Any], params: Mapping[str, Any]) -> None:
    known["capabilities"] = _capabilities(answer, known.get("capabilities"))
    known["serverInfo"] = _server_info(answer, known.get("serverInfo"))
    _keep_readable(answer, known, InitializeResult, {"serverInfo": {"name": "", "version": ""}})


async def _read_discovered(answer: Answer, known: dict[str, Any], params: Mapping[str, Any]) -> None:
    known["capabilities"] = _capabilities(answer, known.get("capabilities"))
    versions: object = known.get("supportedVersions")
    if isinstance(versions, list):
        known["supportedVersions"] = [
            each for each in cast("list[object]", versions) if isinstance(each, str)
        ]
    meta = answer.fields.pop("meta", {})
    # Where drafts of the specification had it, and servers still do.
    info = meta.get(SERVER_INFO_META_KEY) or known.get("serverInfo")
    if info:
        meta = {**meta, SERVER_INFO_META_KEY: _server_info(answer, info)}
    if meta:
        known["_meta"] = meta
    _keep_readable(answer, known, DiscoverResult, {})


# The items of lists


async def _read_list(
    answer: Answer,
    known: dict[str, Any],
    member: str,
    read: Callable[[Answer, object], Any],
    *,
    single: str | None,
) -> list[Any]:
    """The readable items of a list, which becomes an empty one for the SDK's models.

    An array with gaps is an object in the JSON of PHP; with the member `single` it is one item, alone.
    """
    raw: object = known.get(member)
    if isinstance(raw, dict):
        items = cast("dict[str, object]", raw)
        raw = [items] if single is not None and single in items else list(items.values())
    elif not raw:
        raw = []
    elif not isinstance(raw, list):
        return []  # left where it is, for the models to refuse
    known[member] = []
    found: list[Any] = []
    for place, each in enumerate(cast("list[object]", raw), 1):
        item = read(answer, each)
        if item is None:
            answer.note(f"{member}[{place - 1}] {_name(each)}")
        else:
            found.append(item)
        if not place % _AT_A_TIME:
            await anyio.lowlevel.checkpoint()
            deadline = current_deadline.get()
            if deadline is not None and deadline.remaining() <= 0:
                raise deadline.exceeded(f"{answer.method!r}")
    return found


def _block(answer: Answer, raw: object) -> BaseModel | None:
    """A content block; as it came, if the protocol does not know such a one."""
    if isinstance(raw, str):
        answer.note(f"a bare string {_name(raw)}")
        return TextContent(text=raw)
    if not isinstance(raw, dict):
        return None
    block = cast("dict[str, Any]", raw)
    kind: object = block.get("type")
    model = _BLOCKS.get(kind) if isinstance(kind, str) else None
    if model is not None:
        found, is_whole = read_model(model, block)
        if found is not None:
            if not is_whole:
                answer.note(f"a block of type {_name(kind)}")
            return found
    answer.is_widened = True
    answer.note(f"a block of type {_name(kind)}")
    return UnknownContent.model_validate({**block, "type": kind if isinstance(kind, str) else ""})


def _messages(answer: Answer, raw: object) -> list[BaseModel] | None:
    """A prompt's message. With several blocks, which is not allowed, it is as many."""
    if not isinstance(raw, dict):
        return None
    message = cast("dict[str, Any]", raw)
    role: object = message.get("role")
    content: object = message.get("content")
    blocks = cast("list[object]", content) if isinstance(content, list) else [content]
    read = [block for block in (_block(answer, each) for each in blocks) if block is not None]
    if not read:
        return None
    if role not in ("user", "assistant"):
        answer.note(f"a message in the role {_name(role)}")
        answer.is_widened = True
    elif not any(isinstance(block, UnknownContent) for block in read):
        return [PromptMessage.model_construct(role=role, content=block) for block in read]
    return [OddMessage.model_construct(role=role, content=block) for block in read]


def _contents(answer: Answer, raw: object, uri: object) -> BaseModel | None:
    if not isinstance(raw, dict):
        return None
    contents = cast("dict[str, Any]", raw)
    is_blob = isinstance(contents.get("blob"), str) and not isinstance(contents.get("text"), str)
    found, is_whole = read_model(
        BlobResourceContents if is_blob else TextResourceContents, contents, defaults={"uri": uri}
    )
    if found is not None and not is_whole:
        answer.note(_name(contents))
    return found


def _value(answer: Answer, raw: object) -> str | None:
    return raw if isinstance(raw, str) else None


def _tool(raw: dict[str, Any]) -> dict[str, Any]:
    schemas = {
        name: _schema(cast("dict[str, Any]", raw[name]))
        for name in ("inputSchema", "outputSchema")
        if isinstance(raw.get(name), dict)
    }
    return {**_present(raw), **schemas}


def _schema(schema: dict[str, Any]) -> dict[str, Any]:
    """`schema`, with objects where PHP has written empty arrays, and without null where one belongs."""
    mended: dict[str, Any] = {}
    for name in _MAPS:
        if name not in schema:
            continue
        value: object = schema[name]
        if isinstance(value, dict):
            subschemas = cast("dict[str, object]", value)
            if [] in subschemas.values():
                mended[name] = {key: {} if each == [] else each for key, each in subschemas.items()}
        elif not value:
            mended[name] = {}
    if "required" in schema and not isinstance(schema["required"], list | bool):
        mended["required"] = []
    return {**schema, **mended} if mended else schema


def _present(raw: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in raw.items() if value is not None}


def _named_by(member: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Gives what has no name that of its address: early servers have none."""

    def prepare(raw: dict[str, Any]) -> dict[str, Any]:
        item = _present(raw)
        if not isinstance(item.get("name"), str):
            item["name"] = item.get(member)
        return item

    return prepare


# What a server says of itself


def _capabilities(answer: Answer, raw: object) -> dict[str, Any]:
    """What a server can do. Declared by a member that is there, whatever is in it, unless that is false."""
    if not isinstance(raw, dict):
        if raw:
            answer.note("'capabilities'")
        return {}
    found: dict[str, Any] = {}
    for name, value in cast("dict[str, object]", raw).items():
        if value is None or value is False:
            continue
        if not isinstance(value, dict) and value not in ([], True):
            answer.note(f"the capability {_name(name)}")
        settings: dict[str, Any] = cast("dict[str, Any]", value) if isinstance(value, dict) else {}
        if name in ("experimental", "extensions"):
            settings = {
                key: each if isinstance(each, dict) else {}
                for key, each in settings.items()
                if each is not None and each is not False
            }
        found[name] = settings
    return found


def _server_info(answer: Answer, raw: object) -> dict[str, Any]:
    """A server's name and version, "" where it says none: they are for people, and decide nothing."""
    info = cast("dict[str, Any]", raw) if isinstance(raw, dict) else {"name": raw}
    required = {name: _text(info.get(name)) for name in ("name", "version")}
    known = {**_present(info), **required}
    found, is_whole = read_model(Implementation, known)
    if is_whole:
        return known
    answer.note("'serverInfo'")
    return required if found is None else found.model_dump(by_alias=True, mode="json", exclude_none=True)


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < MAX_TTL_MS
    return str(value) if is_number else ""


def _keep_readable(
    answer: Answer, known: dict[str, Any], model: type[BaseModel], defaults: Mapping[str, Any]
) -> None:
    """Leave out of `known` what its model cannot read; what must be there stays, for the models to refuse."""
    found, is_whole = read_model(model, known, defaults=defaults)
    if found is None or is_whole:
        return
    answer.note("what the server says of itself")
    meta = known.get("_meta")
    known.clear()
    known |= found.model_dump(by_alias=True, mode="json", exclude_unset=True, exclude_none=True)
    if meta is not None:
        known["_meta"] = meta


# Values


def _ttl(value: object, default: int) -> int:
    """`ttlMs` as a number of milliseconds; what is none is 0, what is not there the client's default."""
    if value is None or value == "" or value == []:
        return default
    if isinstance(value, str) and len(value) < 20:
        try:
            value = float(value)
        except ValueError:
            return 0
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        return 0
    return 0 if value <= 0 else int(min(value, MAX_TTL_MS))


def _name(item: object) -> str:
    """What to call an item in a warning: repr() makes the server's text harmless."""
    if isinstance(item, dict):
        fields = cast("dict[str, object]", item)
        item = next((fields[key] for key in ("name", "uri", "uriTemplate", "type") if key in fields), None)
    if isinstance(item, str):
        return repr(item[:_NAME_LENGTH])
    return f"(without a name, {type(item).__name__})" if item is None else f"({type(item).__name__})"


def _widened(result: BaseModel) -> BaseModel:
    kinds: dict[type[BaseModel], type[BaseModel]] = {
        CallToolResult: OddToolResult,
        GetPromptResult: OddPromptResult,
    }
    kind = kinds[type(result)]
    return kind.model_construct(result.model_fields_set, **result.__dict__)


def _brief(error: ValidationError) -> str:
    """The first thing wrong, without the input: a server's answer can be megabytes."""
    first: Any = error.errors(include_url=False, include_input=False, include_context=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"{where}: {first['msg']}"[:300]


_DEFAULTS: Final[Mapping[str, Mapping[str, Any]]] = {"tools": {"inputSchema": {"type": "object"}}}

_READERS: Final[Mapping[str, _Reader]] = {
    "initialize": _read_initialized,
    "server/discover": _read_discovered,
    "tools/list": _lister("tools", "tools", Tool, _tool),
    "tools/call": _read_tool_result,
    "prompts/list": _lister("prompts", "prompts", Prompt, _present),
    "prompts/get": _read_prompt,
    "resources/list": _lister("resources", "resources", Resource, _named_by("uri")),
    "resources/templates/list": _lister(
        "resourceTemplates", "resource_templates", ResourceTemplate, _named_by("uriTemplate")
    ),
    "resources/read": _read_contents,
    "completion/complete": _read_completion,
}
