"""The wire vectors of the corpus, through the package's own functions."""

import json
import pickle
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

import arcp
from arcp.runtime import (
    LeaseOpContext,
    assert_lease_subset,
    initial_budget_from_lease,
    is_lease_subset,
    validate_lease_op,
)

WIRE = Path(__file__).parents[1] / "corpus" / "wire"


def cases(name: str, member: str | None = None) -> list[Any]:
    found = json.loads((WIRE / f"{name}.json").read_text(), parse_float=Decimal)["cases"]
    wanted = [case for case in found if member is None or member in case["given"]]
    assert wanted
    return [pytest.param(case["given"], case["expect"], id=case["id"]) for case in wanted]


@pytest.mark.parametrize(("given", "expect"), cases("agent-ref"))
def test_parse_agent_ref(given: Any, expect: Any) -> None:
    if expect["valid"]:
        assert arcp.parse_agent_ref(given["agent"]) == (expect["name"], expect["version"])
    else:
        with pytest.raises(ValueError, match=r"."):
            arcp.parse_agent_ref(given["agent"])


@pytest.mark.parametrize(("given", "expect"), cases("budget", "amount"))
def test_parse_budget_amount(given: Any, expect: Any) -> None:
    if expect["valid"]:
        assert arcp.parse_budget_amount(given["amount"]) == (expect["currency"], Decimal(expect["amount"]))
    else:
        with pytest.raises(ValueError, match=r"."):
            arcp.parse_budget_amount(given["amount"])


@pytest.mark.parametrize(("given", "expect"), cases("lease-glob"))
def test_validate_lease_op(given: Any, expect: Any) -> None:
    lease = {given["namespace"]: [given["pattern"]]}
    operation = LeaseOpContext(given["namespace"], given["target"])
    if expect["allowed"]:
        validate_lease_op(lease, operation)
    else:
        with pytest.raises((arcp.PermissionDeniedError, arcp.InvalidRequestError)) as caught:
            validate_lease_op(lease, operation)
        assert caught.value.code == expect.get("code", caught.value.code)


@pytest.mark.parametrize(("given", "expect"), cases("lease-subset"))
def test_is_lease_subset(given: Any, expect: Any) -> None:
    remaining = given.get("parent_remaining")
    options: dict[str, Any] = {
        "parent_budget_remaining": remaining and {unit: Decimal(text) for unit, text in remaining.items()},
        "child_constraints": arcp.LeaseConstraints(expires_at=given.get("child_expires_at")),
        "parent_constraints": arcp.LeaseConstraints(expires_at=given.get("parent_expires_at")),
    }
    try:
        assert is_lease_subset(given["child"], given["parent"], **options) == expect["subset"]
    except arcp.InvalidRequestError:
        # A parent that cannot be read.
        assert not expect["subset"]
    if not expect["subset"]:
        with pytest.raises(arcp.ARCPError) as caught:
            assert_lease_subset(given["child"], given["parent"], **options)
        assert caught.value.code in (expect["code"], "INVALID_REQUEST")


@pytest.mark.parametrize(("given", "expect"), cases("features", "client"))
def test_intersect_features(given: Any, expect: Any) -> None:
    negotiated = arcp.intersect_features(given["client"] or (), given["runtime"] or ())
    assert negotiated == tuple(expect["negotiated"])


@pytest.mark.parametrize(("given", "expect"), cases("errors"))
def test_error_from_payload(given: Any, expect: Any) -> None:
    sent = not expect["retryable"]
    payload = {"code": given["code"], "message": "no", "retryable": sent, "details": {"k": 1}}
    error = arcp.error_from_payload(payload)
    assert error.code == expect["read_as"]
    assert error.retryable == (expect["retryable"] if expect["pinned"] else sent)
    assert error.details == {"k": 1}
    assert type(error) is arcp.error_class_for(expect["read_as"])
    assert (expect["read_as"] in arcp.ERROR_CODES) == expect["known"]
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert copy.to_payload() == error.to_payload()


@pytest.mark.parametrize(("given", "expect"), cases("envelopes-valid"))
def test_envelopes(given: Any, expect: Any) -> None:
    message = given["message"]
    for receiver in given["receivers"]:
        envelope = arcp.Envelope.from_wire(message, receiver=receiver)
        assert (envelope.id, envelope.type) == (message["id"], message["type"])
        for name in ("session_id", "trace_id", "job_id", "event_seq"):
            assert getattr(envelope, name) == expect.get(name, message.get(name))
        again = arcp.Envelope.from_wire(envelope.to_wire(), receiver=receiver)
        assert again.to_wire() == envelope.to_wire()


@pytest.mark.parametrize(
    ("given", "expect"), [case for case in cases("envelopes-invalid") if "receiver" in case.values[0]]
)
def test_refused_envelopes(given: Any, expect: Any) -> None:
    found = json.loads((WIRE / "envelopes-invalid.json").read_text())["cases"]
    if any(case["given"] == given and "machine" in case.get("needs", ()) for case in found):
        # Well formed: only a session can refuse it.
        arcp.Envelope.from_wire(given["message"], receiver=given["receiver"])
        return
    with pytest.raises(arcp.ARCPError) as caught:
        arcp.Envelope.from_wire(given["message"], receiver=given["receiver"])
    assert caught.value.code == expect["code"]


def test_an_envelope_keeps_what_it_does_not_know_and_every_digit() -> None:
    text = (
        '{"arcp":"1.1","id":"msg_01JX2Q4Z000000000000000001","type":"x-vendor.acme.note","colour":"red",'
        '"payload":{"exact":0.1000000000000000000001,"null":null}}'
    )
    envelope = arcp.Envelope.from_json(text)
    wire = envelope.to_wire()
    assert wire["colour"] == "red"
    assert wire["payload"]["null"] is None
    assert "0.1000000000000000000001" in arcp._native.encode(wire)


def test_initial_budget() -> None:
    budget = initial_budget_from_lease({"cost.budget": ["USD:1.10", "EUR:3"]})
    assert budget == {"USD": Decimal("1.10"), "EUR": Decimal(3)}
