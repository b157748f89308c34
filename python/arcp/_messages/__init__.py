"""Where programs written for the published SDK look for payloads; new ones use `arcp.messages`."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from arcp import messages

__all__ = ["PAYLOAD_REGISTRY", "parse_payload"]

PAYLOAD_REGISTRY: dict[str, type[BaseModel]] = {
    "session.hello": messages.SessionHelloPayload,
    "session.welcome": messages.SessionWelcomePayload,
    "session.bye": messages.SessionByePayload,
    "session.error": messages.SessionErrorPayload,
    "session.ping": messages.SessionPingPayload,
    "session.pong": messages.SessionPongPayload,
    "session.ack": messages.SessionAckPayload,
    "session.list_jobs": messages.SessionListJobsPayload,
    "session.jobs": messages.SessionJobsPayload,
    "job.submit": messages.JobSubmitPayload,
    "job.accepted": messages.JobAcceptedPayload,
    "job.event": messages.JobEventPayload,
    "job.result": messages.JobResultPayload,
    "job.error": messages.JobErrorPayload,
    "job.cancel": messages.JobCancelPayload,
    "job.subscribe": messages.JobSubscribePayload,
    "job.subscribed": messages.JobSubscribedPayload,
    "job.unsubscribe": messages.JobUnsubscribePayload,
}
"""The model of each type of message."""


def parse_payload(envelope_type: str, raw: Mapping[str, Any]) -> BaseModel | dict[str, Any]:
    """The payload as the model of its type, or as it is for an unknown type. `pydantic.ValidationError`."""
    model = PAYLOAD_REGISTRY.get(envelope_type)
    return dict(raw) if model is None else model.model_validate(raw)
