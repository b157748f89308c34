"""An OpenAPI document as Markdown: what `docs/registry/http.md` says of each endpoint."""

import json
from collections.abc import Iterator
from typing import Any

Schema = dict[str, Any]

TAGS = ("System", "Login", "Tokens", "Agents", "Search", "Public", "Connections", "Dashboard")
MODELS = ("AgentInfo", "AgentMetrics", "AgentRequirements", "SearchResponse")
METHODS = ("get", "post", "put", "delete", "options", "patch", "head")
# Of every call; the page says so once.
EVERYWHERE = {"200", "400", "403", "413"}
# The page says once what they mean.
EXPLAINED = {"401", "422", "429"}
PATTERNS = {
    "^[A-Za-z0-9_-]+$": "letters, digits, `_`, `-`",
    "^[A-Za-z0-9_@.-]+$": "letters, digits, `_`, `@`, `.`, `-`",
}


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            if method in METHODS:
                yield path, method, operation


def endpoints(document: dict[str, Any], members: dict[str, list[str]]) -> str:
    """Every operation under its tag; `members` has those of answers that the document leaves open, by path."""
    parts: list[str] = []
    found = list(operations(document))
    assert {operation["tags"][0] for _, _, operation in found} == set(TAGS)
    for tag in TAGS:
        parts.append(f"### {tag}\n")
        for path, method, operation in found:
            if operation["tags"] == [tag]:
                parts.append(_operation(document, path, method, operation, members.get(path)))
    parts.append("### Models\n")
    for name in MODELS:
        schema = document["components"]["schemas"][name]
        parts += [f"#### {name}\n", *_table(document, "Member", schema)]
    return "\n".join(parts) + "\n"


def _operation(
    document: dict[str, Any], path: str, method: str, operation: dict[str, Any], members: list[str] | None
) -> str:
    lines = [f"#### {method.upper()} {path}\n", f"{operation['summary']}. Level: {operation['x-level']}.\n"]
    rows: list[str] = []
    for parameter in operation.get("parameters", []):
        if parameter["in"] == "query":
            rows.append(_row(document, parameter["name"], parameter["required"], parameter["schema"], parameter))
    if rows:
        lines += ["| In the query | Takes | |", "|---|---|---|", *rows, ""]
    if body := operation.get("requestBody"):
        schema = _resolved(document, body["content"]["application/json"]["schema"])
        lines += _table(document, "In the body", schema)
        for example in schema.get("examples", []):
            lines.append(f"```json\n{json.dumps(example)}\n```\n")
    if answer := _answer(document, operation["responses"]["200"], members):
        lines.append(f"Answer: {answer}.\n")
    refusals = [
        status
        if status in EXPLAINED
        else f"{status} ({response['description'][0].lower()}{response['description'][1:]})"
        for status, response in sorted(operation["responses"].items())
        if status not in EVERYWHERE
    ]
    if refusals:
        lines.append(f"Errors: {', '.join(refusals)}.\n")
    return "\n".join(lines)


def _table(document: dict[str, Any], head: str, schema: Schema) -> list[str]:
    """Members of an object, required ones first."""
    required = schema.get("required", [])
    if schema in [document["components"]["schemas"][name] for name in MODELS]:
        # Nobody sends these.
        required = []
    members = sorted(schema["properties"].items(), key=lambda member: member[0] not in required)
    rows = [_row(document, name, name in required, member, {}) for name, member in members]
    return [f"| {head} | {'Holds' if head == 'Member' else 'Takes'} | |", "|---|---|---|", *rows, ""]


def _row(document: dict[str, Any], name: str, required: bool, schema: Schema, told: dict[str, Any]) -> str:
    notes = ["required"] if required else []
    if (default := _resolved(document, schema).get("default")) is not None:
        notes.append(f"default `{json.dumps(default)}`")
    if description := told.get("description"):
        notes.append(description[0].lower() + description[1:])
    return f"| `{name}` | {takes(document, schema)} | {'; '.join(notes)} |"


def _answer(document: dict[str, Any], response: dict[str, Any], members: list[str] | None) -> str:
    ((media, content),) = response["content"].items()
    schema = content["schema"]
    if media != "application/json":
        return {"text/plain": "Prometheus text", "text/html": "a page"}[media]
    if schema.get("type") == "array":
        return f"a list of {_model(schema['items'])}"
    if "$ref" in schema and _name(schema) in MODELS:
        return _model(schema)
    resolved = _resolved(document, schema)
    if names := list(resolved.get("properties", {})) or members:
        return ", ".join(f"`{name}`" for name in names)
    return ""


def _name(schema: Schema) -> str:
    return str(schema["$ref"].rsplit("/", 1)[1])


def _model(schema: Schema) -> str:
    return f"[`{_name(schema)}`](#{_name(schema).lower()})"


def _resolved(document: dict[str, Any], value: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in value:
        found: Any = document
        for part in value["$ref"].removeprefix("#/").split("/"):
            found = found[part]
        value = found
    return value


def takes(document: dict[str, Any], schema: Schema) -> str:
    """A schema in words."""
    if "$ref" in schema:
        return _model(schema)
    if "anyOf" in schema:
        some = [takes(document, one) for one in schema["anyOf"] if one.get("type") != "null"]
        return " or ".join(dict.fromkeys(some))
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    kind = schema.get("type", "anything")
    if isinstance(kind, list):
        (kind,) = (one for one in kind if one != "null")
    match kind:
        case "string":
            if schema.get("examples", [""])[0][:1].isdigit():
                return "a time"
            kind = "an address" if schema.get("format") == "uri" else "text"
            if pattern := PATTERNS.get(schema.get("pattern", "")):
                kind += f" of {pattern}"
            return kind + _bounds(schema, "minLength", "maxLength", " characters")
        case "integer":
            return "whole number" + _bounds(schema, "minimum", "maximum", "")
        case "number":
            return "number" + _bounds(schema, "minimum", "maximum", "")
        case "boolean":
            return "true or false"
        case "array":
            return (
                "list"
                + _bounds(schema, "minItems", "maxItems", " entries")
                + f", each {takes(document, schema['items'])}"
            )
        case "object":
            return "object" + _bounds(schema, "minProperties", "maxProperties", " members")
        case other:
            return str(other)


def _bounds(schema: Schema, least: str, most: str, unit: str) -> str:
    match (schema.get(least), schema.get(most)):
        case (None, None):
            return ""
        case (low, None):
            return f", at least {low}{unit}"
        case (None, high):
            return f", at most {high}{unit}"
        case (low, high):
            return f", {low} to {high}{unit}"
