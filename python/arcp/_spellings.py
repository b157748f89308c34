"""Bodies of events as the published SDK spells them, for agents that were written for it."""

from collections.abc import Mapping
from typing import Any

from arcp.errors import error_class_for

_MEMBERS = {
    "tool_call": {"tool_call_id": "call_id", "name": "tool", "arguments": "args"},
    "tool_result": {"tool_call_id": "call_id", "output": "result"},
    "artifact_ref": {"media_type": "content_type", "size_bytes": "byte_size"},
}


def with_protocol_names(kind: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
    """The body, with the protocol's name beside each member that has another; clients may read either."""
    spellings = _MEMBERS.get(kind)
    if spellings is None or not isinstance(body, Mapping):
        return body
    added = {name: body[other] for other, name in spellings.items() if other in body and name not in body}
    if kind == "artifact_ref" and "uri" not in body and isinstance(body.get("artifact_id"), str):
        # There, an artifact may have an id alone.
        added["uri"] = f"artifact:{body['artifact_id']}"
    if kind == "tool_result" and isinstance(body.get("error"), Mapping) and "retryable" not in body["error"]:
        # There, it may be left to the code.
        error: Mapping[str, Any] = body["error"]
        added["error"] = {**error, "retryable": error_class_for(str(error.get("code"))).default_retryable}
    return {**body, **added} if added else body
