"""The models of the messages: aliases, bounds, members a peer adds, and what is not shown."""

import re
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

import arcp
from arcp import _envelope, _errors, _messages, _ulid, messages
from arcp._messages import PAYLOAD_REGISTRY, execution, parse_payload
from arcp._messages import session as session_messages

SECRET = "s3cr3t-value"
TS = "2026-05-13T19:30:00.000Z"

MINIMAL: dict[str, dict[str, Any]] = {
    "session.hello": {"client": {"name": "c", "version": "1"}, "auth": {"token": SECRET}},
    "session.welcome": {"session_id": "s", "runtime": {"name": "r", "version": "1"}, "resume_token": SECRET},
    "session.bye": {"reason": "done"},
    "session.error": {"code": "INVALID_REQUEST", "message": "m"},
    "session.ping": {"nonce": "n", "sent_at": TS},
    "session.pong": {"ping_nonce": "n", "received_at": TS},
    "session.ack": {"last_processed_seq": 0},
    "session.list_jobs": {},
    "session.jobs": {"request_id": "msg_1"},
    "job.submit": {"agent": "echo"},
    "job.accepted": {"job_id": "j", "agent": "echo", "accepted_at": TS},
    "job.event": {"kind": "status", "ts": TS, "body": {"phase": "p"}},
    "job.result": {"final_status": "success", "completed_at": TS},
    "job.error": {"code": "CANCELLED", "message": "m", "completed_at": TS},
    "job.cancel": {"reason": "client.cancel"},
    "job.subscribe": {"job_id": "j"},
    "job.subscribed": {"request_id": "r", "job_id": "j", "current_status": "running", "agent": "echo"},
    "job.unsubscribe": {"job_id": "j"},
}


def test_every_type_of_message_has_its_model() -> None:
    assert PAYLOAD_REGISTRY.keys() == MINIMAL.keys()
    assert parse_payload("session.news", {"a": 1}) == {"a": 1}


@pytest.mark.parametrize("kind", MINIMAL)
def test_minimal_payloads(kind: str) -> None:
    payload = parse_payload(kind, MINIMAL[kind] | {"from_a_later_version": 1})
    assert isinstance(payload, BaseModel)
    assert payload.model_dump()["from_a_later_version"] == 1
    again = type(payload).model_validate_json(payload.model_dump_json(by_alias=True))
    assert again == payload
    assert SECRET not in repr(payload)
    assert SECRET not in str(payload)


@pytest.mark.parametrize("kind", MINIMAL)
def test_what_is_missing_is_named(kind: str) -> None:
    model = PAYLOAD_REGISTRY[kind]
    model.model_rebuild()
    for name, field in model.model_fields.items():
        if field.is_required():
            rest = {key: value for key, value in MINIMAL[kind].items() if key != name}
            with pytest.raises(ValidationError, match=name) as caught:
                model.model_validate(rest)
            assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("model", "payload", "at_fault"),
    [
        (messages.SessionResume, {"session_id": "s", "resume_token": SECRET, "last_event_seq": -1}, "last_event_seq"),
        (messages.SessionAckPayload, {"last_processed_seq": -1}, "last_processed_seq"),
        (messages.SessionListJobsPayload, {"limit": 0}, "limit"),
        (messages.SessionListJobsPayload, {"limit": 1001}, "limit"),
        (messages.JobSubmitPayload, {"agent": "a", "idempotency_key": ""}, "idempotency_key"),
        (messages.JobSubmitPayload, {"agent": "a", "idempotency_key": "k" * 257}, "idempotency_key"),
        (messages.JobSubmitPayload, {"agent": "a", "max_runtime_sec": 0}, "max_runtime_sec"),
        (messages.JobSubmitPayload, {"agent": "a", "max_runtime_sec": 86401}, "max_runtime_sec"),
        (messages.JobSubscribePayload, {"job_id": "j", "from_event_seq": -1}, "from_event_seq"),
        (messages.JobResultPayload, {"final_status": "error"}, "final_status"),
        (messages.AuthBearer, {"scheme": "basic", "token": SECRET}, "scheme"),
        (messages.CredentialPayload, {"id": "c", "scheme": "basic", "value": SECRET, "endpoint": "e"}, "scheme"),
        (messages.CredentialPayload, {"id": "c", "value": {SECRET: SECRET}, "endpoint": "e"}, "value"),
        (messages.Envelope, {"id": "", "type": "t"}, "id"),
        (messages.Envelope, {"id": "m", "type": "t", "event_seq": 0}, "event_seq"),
        (messages.Envelope, {"id": "m", "type": "t", "trace_id": "0" * 32}, "trace_id"),
        (messages.Envelope, {"id": "m", "type": "t", "trace_id": "A" * 32}, "trace_id"),
        (messages.Envelope, {"id": "m", "type": "t", "trace_id": "a" * 32 + "\n"}, "trace_id"),
        (messages.Envelope, {"id": "m", "type": "t", "arcp": "2", "payload": {"token": SECRET}}, "arcp"),
        (messages.Envelope, {"id": "m", "type": "t", "payload": SECRET}, "payload"),
    ],
)
def test_bounds(model: type[BaseModel], payload: dict[str, Any], at_fault: str) -> None:
    with pytest.raises(ValidationError) as caught:
        model.model_validate(payload)
    assert [error["loc"][0] for error in caught.value.errors()] == [at_fault]
    assert SECRET not in str(caught.value)


def test_aliases() -> None:
    wire = {"cost.budget": ["USD:1.00"], "model.use": ["m-*"], "expires_at": TS}
    constraints = messages.CredentialConstraintsPayload.model_validate(wire)
    assert (constraints.cost_budget, constraints.model_use) == (("USD:1.00",), ("m-*",))
    assert constraints.model_dump(mode="json", by_alias=True) == wire
    assert messages.CredentialConstraintsPayload.model_validate({"cost_budget": ["USD:1.00"]}).cost_budget


def test_defaults() -> None:
    welcome = messages.SessionWelcomePayload.model_validate(MINIMAL["session.welcome"])
    assert (welcome.resume_window_sec, welcome.heartbeat_interval_sec) == (600, None)
    assert (welcome.capabilities.encodings, welcome.capabilities.features) == (("json",), ())
    submit = messages.JobSubmitPayload(agent="echo")
    assert (submit.input, submit.lease_request, submit.max_runtime_sec) == (None, {}, None)
    agents = messages.Capabilities.model_validate({"agents": ["a", {"name": "b", "versions": ["1"]}]}).agents
    assert agents == ("a", messages.AgentInventoryEntry(name="b", versions=("1",)))
    subscribed = messages.JobSubscribedPayload.model_validate(MINIMAL["job.subscribed"] | {"replayed": 5})
    assert subscribed.replayed == 5


def test_secrets_are_shown_nowhere() -> None:
    credential = messages.CredentialPayload(id="c", value=SECRET, endpoint="https://e")
    accepted = messages.JobAcceptedPayload(job_id="j", credentials=(credential,))
    resume = messages.SessionResume(session_id="s", resume_token=SECRET)
    hello = messages.SessionHelloPayload(
        client=messages.ClientInfo(name="c", version="1"), auth=messages.AuthBearer(token=SECRET), resume=resume
    )
    envelope = arcp.Envelope(id="msg_1", type="session.hello", payload=hello.model_dump())
    for shown in (credential, accepted, resume, hello, envelope, [credential], {"a": hello}):
        assert SECRET not in repr(shown)
        assert SECRET not in f"{shown}"
    assert envelope.to_wire()["payload"]["auth"]["token"] == SECRET


@pytest.mark.parametrize(
    ("kind", "body", "at_fault"),
    [
        ("log", {"level": "info"}, "message"),
        ("log", {"level": 1, "message": "m"}, "level"),
        ("thought", {}, "text"),
        ("tool_call", {"tool": "t"}, "call_id"),
        ("tool_result", {"call_id": "c", "result": 1, "error": {"code": "X", "message": "m"}}, "either"),
        ("tool_result", {"call_id": "c", "error": {"code": "X"}}, "message"),
        ("metric", {"name": "m"}, "value"),
        ("metric", {"name": "m", "value": True}, "number"),
        ("metric", {"name": "m", "value": float("nan")}, "number"),
        ("metric", {"name": "m", "value": "1"}, "number"),
        ("artifact_ref", {"uri": "u", "byte_size": -1}, "byte_size"),
        ("delegate", {}, "agent"),
        ("progress", {"current": -1}, "current"),
        ("result_chunk", {"result_id": "r", "chunk_seq": 0, "data": "", "encoding": "hex", "more": True}, "encoding"),
        ("status", [], "dict"),
        ("x-vendor.acme", {}, "x-vendor"),
        ("brand_new", {}, "x-vendor"),
    ],
)
def test_a_bad_event_is_refused_by_the_models(kind: str, body: Any, at_fault: str) -> None:
    given = {"kind": kind, "ts": TS, "body": body}
    with pytest.raises(ValidationError, match=at_fault):
        messages.JobEventPayload.model_validate(given)
    if kind in execution.EVENT_KINDS:
        with pytest.raises(ValidationError, match=at_fault):
            messages.parse_event(given)


def test_events_are_told_apart_by_kind() -> None:
    for kind, body, model in [
        ("log", {"level": "info", "message": "m"}, messages.LogPayload),
        ("progress", {"current": 47.5, "total": 40}, messages.ProgressPayload),
        ("tool_call", {"name": "t", "tool_call_id": "c"}, messages.ToolCallPayload),
        ("x-vendor.acme.thing", [1], messages.VendorPayload),
        ("brand_new", None, messages.VendorPayload),
    ]:
        payload = messages.parse_event({"kind": kind, "ts": TS, "body": body})
        assert type(payload) is model
        assert payload.model_dump(mode="json") == {"kind": kind, "ts": TS, "body": body}
    assert messages.JobEventPayload(kind="x-vendor.acme.thing", ts=TS).body == {}

    class Kept(BaseModel):
        event: messages.EventPayload

    kept = Kept.model_validate_json('{"event":{"kind":"thought","ts":"t","body":{"text":"x"}}}')
    assert isinstance(kept.event, messages.ThoughtPayload)
    assert kept.event.body.text == "x"


def test_private_names_of_the_published_package() -> None:
    assert session_messages.AgentInventoryEntry is messages.AgentInventoryEntry
    assert execution.JobAcceptedPayload is messages.JobAcceptedPayload
    assert _messages.PAYLOAD_REGISTRY["job.event"] is messages.JobEventPayload
    assert _errors.InternalError is arcp.InternalError
    assert _envelope.Envelope is arcp.Envelope
    assert execution.format_agent_ref("a", "1") == "a@1"
    assert execution.format_agent_ref("a", None) == "a"
    assert execution.format_budget_amount(*execution.parse_budget_amount("USD:1.25")) == "USD:1.25"
    execution.validate_progress_body({"current": 1})
    execution.validate_metric_body({"name": "m", "value": 1})
    for check in (execution.validate_metric_body, execution.validate_progress_body):
        with pytest.raises(ValueError, match=r"."):
            check({})
    with pytest.raises(ValueError, match="chunk_seq"):
        execution.validate_result_chunk_body({"result_id": "r", "data": "", "encoding": "utf8", "more": False})


def test_ids_made_by_hand() -> None:
    """As R-5.5 has it."""
    ulids = [_ulid.new_ulid() for _ in range(200)]
    assert len(set(ulids)) == 200
    assert all(re.fullmatch("[0-7][0-9A-HJKMNP-TV-Z]{25}", ulid) for ulid in ulids)
    assert [ulid[:10] for ulid in ulids] == sorted(ulid[:10] for ulid in ulids)
    assert _ulid.new_envelope_id().startswith("msg_")
    assert _ulid.new_session_id().startswith("sess_")
    assert _ulid.new_job_id().startswith("job_")
    assert _ulid.new_result_id().startswith("res_")
    assert _ulid.new_resume_token().startswith("rtk_")
