"""What a server offers and answers, as lines of text or as one JSON document.

Pure: takes the protocol's models, returns strings; prints nothing. Text from a server loses its
control characters here; JSON keeps everything and is plain ASCII.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from mcp.types import (
    AudioContent,
    BlobResourceContents,
    CallToolResult,
    ContentBlock,
    ImageContent,
    Implementation,
    Prompt,
    Resource,
    ResourceLink,
    ResourceTemplate,
    TextContent,
    Tool,
)
from pydantic import BaseModel
from rich.text import Text

from anyio_mcp._text import printable
from anyio_mcp.content import UnknownContent

_LONGEST_NAME: Final = 1000
"""Characters of a name, a signature or a description in a list; JSON has all of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """Everything `anyio-mcp list` asked a server for."""

    server: Implementation | None
    protocol_version: str | None
    tools: Sequence[Tool] = ()
    resources: Sequence[Resource] = ()
    templates: Sequence[ResourceTemplate] = ()
    prompts: Sequence[Prompt] = ()
    failures: Sequence[tuple[str, Exception]] = ()
    """The lists that were asked for in vain, and why."""


def as_json(value: Any) -> str:
    """`value` as one JSON document in ASCII, which no terminal and no pipe can misread."""
    return json.dumps(value, indent=2)


def dump(model: BaseModel) -> dict[str, Any]:
    """A protocol model as it travels on the wire."""
    return model.model_dump(mode="json", by_alias=True, exclude_none=True)


def offer_as_json(offer: Offer) -> str:
    return as_json(
        {
            "serverInfo": dump(offer.server) if offer.server else None,
            "protocolVersion": offer.protocol_version,
            "tools": [dump(tool) for tool in offer.tools],
            "resources": [dump(resource) for resource in offer.resources],
            "resourceTemplates": [dump(template) for template in offer.templates],
            "prompts": [dump(prompt) for prompt in offer.prompts],
        }
    )


def offer_as_text(offer: Offer) -> Iterator[Text]:
    name = f"{offer.server.name} {offer.server.version}" if offer.server else "a server without a name"
    version = printable(str(offer.protocol_version), _LONGEST_NAME)
    yield Text.assemble((printable(name, _LONGEST_NAME), "bold"), f"  (MCP {version})")
    sections = (
        ("tools", [(_signature(tool), tool.description) for tool in offer.tools]),
        ("resources", [(resource.uri, resource.description) for resource in offer.resources]),
        ("resource templates", [(item.uri_template, item.description) for item in offer.templates]),
        ("prompts", [(_prompt(prompt), prompt.description) for prompt in offer.prompts]),
    )
    for title, entries in sections:
        if entries:
            yield Text(title, style="cyan")
        for head, description in entries:
            about = _first_line(description)
            shown = printable(str(head), _LONGEST_NAME)
            yield Text.assemble("  ", (shown, "bold"), (f"  {about}" if about else "", "dim"))
    if not any(entries for _, entries in sections):
        yield Text("offers no tools, resources or prompts")


def result_as_text(result: CallToolResult) -> Iterator[str]:
    """The content of a tool's answer, one item after the other."""
    for block in result.content:
        text = _block(block)
        # Not cut: it is what was asked for, and as long as a message may be at most.
        yield printable(text, len(text), lines=True)
    if not result.content and result.structured_content is not None:
        yield as_json(result.structured_content)


def error_text(result: CallToolResult) -> str:
    """What a tool said went wrong."""
    return " ".join(result_as_text(result)) or "the tool failed without a word"


def _block(block: ContentBlock | UnknownContent) -> str:
    if isinstance(block, UnknownContent):
        return f"[content of the unknown type {block.type!r}: {json.dumps(block.model_extra)}]"
    if isinstance(block, TextContent):
        return block.text
    if isinstance(block, ImageContent | AudioContent):
        return f"[{block.type} {block.mime_type}, {len(block.data)} characters of base64]"
    if isinstance(block, ResourceLink):
        return f"[resource {block.uri}]"
    contents = block.resource
    if isinstance(contents, BlobResourceContents):
        return f"[resource {contents.uri}, {len(contents.blob)} characters of base64]"
    return contents.text


def _signature(tool: Tool) -> str:
    """`add(a: integer, b?: integer)` of a tool's input schema, whatever shape that has."""
    properties = tool.input_schema.get("properties")
    required = tool.input_schema.get("required")
    names = cast("list[Any]", required) if isinstance(required, list) else []
    fields: Mapping[str, Any] = cast("Any", properties) if isinstance(properties, Mapping) else {}
    inner = ", ".join(
        f"{name}{'' if name in names else '?'}: {_type(schema)}" for name, schema in fields.items()
    )
    return f"{tool.name}({inner})"


def _type(schema: Any) -> str:
    if not isinstance(schema, Mapping):
        return "any"
    fields = cast("Mapping[str, Any]", schema)
    if isinstance(named := fields.get("type"), str):
        return named
    if isinstance(named, list):
        return "|".join(str(item) for item in cast("list[Any]", named))
    if isinstance(choices := fields.get("enum"), list):
        return "|".join(json.dumps(item) for item in cast("list[Any]", choices))
    # One level only: a schema may nest for ever, a line may not.
    if isinstance(options := fields.get("anyOf"), list):
        return "|".join(_kind(item) for item in cast("list[Any]", options))
    return "any"


def _kind(schema: Any) -> str:
    return str(cast("Mapping[str, Any]", schema).get("type", "any")) if isinstance(schema, Mapping) else "any"


def _prompt(prompt: Prompt) -> str:
    arguments = prompt.arguments or []
    inner = ", ".join(f"{item.name}{'' if item.required else '?'}" for item in arguments)
    return f"{prompt.name}({inner})"


def _first_line(description: str | None) -> str:
    lines = (description or "")[:_LONGEST_NAME].strip().splitlines()
    return printable(lines[0]) if lines else ""
