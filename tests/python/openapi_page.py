"""An OpenAPI document as a page of Markdown: what `docs/registry/http.md` says of each endpoint."""

import json
from collections.abc import Iterator
from typing import Any

Schema = dict[str, Any]


def endpoints(document: dict[str, Any]) -> str:
    """Every operation in the order of the document, under its tag."""
    parts: list[str] = []
    tag = None
    for path, method, operation in operations(document):
        if (mine := operation["tags"][0]) != tag:
            tag = mine
            parts.append(f"### {tag}\n")
        parts.append(_operation(document, path, method, operation))
    return "\n".join(parts)


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            if method in ("get", "post", "put", "delete", "options", "patch", "head"):
                yield path, method, operation


def _operation(document: dict[str, Any], path: str, method: str, operation: dict[str, Any]) -> str:
    lines = [f"#### {method.upper()} {path}\n", f"{operation['summary']}\n"]
    if description := operation.get("description"):
        lines.append(f"{description}\n")
    lines.append(f"Level: {level(operation)}.\n")
    if parameters := [_resolved(document, parameter) for parameter in operation.get("parameters", [])]:
        lines += ["| Parameter | In | Takes | Default | |", "|---|---|---|---|---|"]
        for parameter in parameters:
            schema = _resolved(document, parameter.get("schema", {}))
            told = parameter.get("description", "")
            needed = " (required)" if parameter.get("required") and parameter["in"] != "path" else ""
            lines.append(
                f"| `{parameter['name']}`{needed} | {parameter['in']} | {takes(document, schema)} "
                f"| {_default(schema)} | {told} |"
            )
        lines.append("")
    if body := operation.get("requestBody"):
        (content,) = _resolved(document, body)["content"].values()
        lines += _body(document, content)
    for status, response in sorted(operation["responses"].items()):
        response = _resolved(document, response)
        if status.startswith("2"):
            lines += _success(document, status, response)
    refusals = [
        f"{status} {_resolved(document, response).get('description', '').rstrip('.')}"
        for status, response in sorted(operation["responses"].items())
        if not status.startswith("2")
    ]
    if refusals:
        lines.append(f"Errors: {'; '.join(refusals)}.\n")
    return "\n".join(lines)


def level(operation: dict[str, Any]) -> str:
    return str(operation.get("x-level") or ("bearer" if operation.get("security") else "public"))


def _body(document: dict[str, Any], content: dict[str, Any]) -> list[str]:
    schema = _resolved(document, content["schema"])
    lines = ["| Member | Takes | Default | |", "|---|---|---|---|"]
    required = schema.get("required", [])
    for name, member in schema.get("properties", {}).items():
        member = _resolved(document, member)
        needed = " (required)" if name in required else ""
        lines.append(
            f"| `{name}`{needed} | {takes(document, member)} | {_default(member)} | {member.get('description', '')} |"
        )
    return [*lines, ""]


def _success(document: dict[str, Any], status: str, response: dict[str, Any]) -> list[str]:
    lines = [f"{status}: {response.get('description', '').rstrip('.')}.\n"]
    for content in response.get("content", {}).values():
        example = content.get("example")
        if example is None:
            for one in content.get("examples", {}).values():
                example = one.get("value")
                break
        if isinstance(example, str):
            lines.append(f"```\n{example.rstrip()}\n```\n")
        elif example is not None:
            lines.append(f"```json\n{json.dumps(example, indent=2)}\n```\n")
    return lines


def _resolved(document: dict[str, Any], value: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in value:
        found: Any = document
        for part in value["$ref"].removeprefix("#/").split("/"):
            found = found[part]
        # What stands beside a reference counts too.
        value = found | {name: member for name, member in value.items() if name != "$ref"}
    return value


def _default(schema: Schema) -> str:
    return f"`{json.dumps(schema['default'])}`" if "default" in schema else ""


def takes(document: dict[str, Any], schema: Schema) -> str:
    """A schema in words."""
    schema = _resolved(document, schema)
    for choice in ("oneOf", "anyOf"):
        if choice in schema:
            some = [takes(document, one) for one in schema[choice]]
            return " or ".join(dict.fromkeys(some))
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    kind = schema.get("type", "anything")
    if isinstance(kind, list):
        return " or ".join(takes(document, schema | {"type": one}) for one in kind)
    match kind:
        case "string":
            word = {"date-time": "a time"}.get(schema.get("format", ""), "text")
            return word + _bounds(schema, "minLength", "maxLength", " characters")
        case "integer":
            return "whole number" + _bounds(schema, "minimum", "maximum", "")
        case "number":
            return "number" + _bounds(schema, "minimum", "maximum", "")
        case "boolean":
            return "true or false"
        case "array":
            items = takes(document, schema.get("items", {}))
            return f"list of {items}" + _bounds(schema, "minItems", "maxItems", " entries")
        case "object":
            return "object" + _bounds(schema, "minProperties", "maxProperties", " members")
        case other:
            return str(other)


def _bounds(schema: Schema, least: str, most: str, unit: str) -> str:
    low, high = schema.get(least), schema.get(most)
    match (low, high):
        case (None, None):
            return ""
        case (_, None):
            return f", at least {low}{unit}"
        case (None, _):
            return f", at most {high}{unit}"
        case _:
            return f", {low} to {high}{unit}"
