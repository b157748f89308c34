"""The registry's models: every bound is checked where one is made, and nothing is refused that a registry sent."""

import pickle
import warnings
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import BaseModel

from arcp import (
    AgentConnectionRequest,
    AgentInfo,
    AgentMetrics,
    AgentRegistration,
    AgentRequirements,
    SearchRequest,
    SearchResponse,
    ValidationError,
)
from arcp.registry import ConfigField
from arcp.registry._model import READING

REGISTRATION: dict[str, Any] = {
    "name": "Agent A",
    "agent_id": "a-1",
    "agent_type": "testing",
    "endpoint": "http://h.example",
    "context_brief": "A context brief here",
    "capabilities": ["echo"],
    "owner": "Own",
    "public_key": "k" * 32,
    "metadata": {"a": "b"},
    "version": "1.0.0",
    "communication_mode": "remote",
}


def faults(model: type[BaseModel], **data: Any) -> dict[tuple[int | str, ...], str]:
    with pytest.raises(ValidationError) as caught:
        model(**data)
    return {tuple(line["loc"]): line["msg"] for line in caught.value.errors()}


def changed(**data: Any) -> dict[str, Any]:
    return {name: value for name, value in {**REGISTRATION, **data}.items() if value is not ...}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "x"),
        ("name", "x" * 33),
        ("name", ...),
        ("agent_id", "a/b"),
        ("agent_id", "ab"),
        ("agent_type", "no spaces"),
        ("endpoint", "ftp://h"),
        ("endpoint", "http://"),
        ("endpoint", "http://h h"),
        ("context_brief", "short"),
        ("capabilities", []),
        ("capabilities", [" "]),
        ("owner", "x"),
        ("public_key", "k" * 31),
        ("metadata", {}),
        ("metadata", {"a": None}),
        ("version", "1.0"),
        ("communication_mode", "carrier-pigeon"),
        ("max_tokens", 0),
        ("max_tokens", "many"),
        ("rate_limit", 10001),
    ],
)
def test_a_bound_of_a_registration(field: str, value: Any) -> None:
    """Rules: REG-005, REG-070, REG-101"""
    found = faults(AgentRegistration, **changed(**{field: value}))
    assert {place[0] for place in found} == {field}
    assert all(field in text for text in found.values())


def test_every_fault_has_a_line() -> None:
    """Rules: REG-070, REG-101"""
    found = faults(AgentRegistration, **changed(name="x", owner="x", max_tokens=0))
    assert [place for (place,) in found] == ["name", "owner", "max_tokens"]


def test_what_is_normalised() -> None:
    """Rules: REG-070"""
    made = AgentRegistration(
        **changed(
            name="  Agent A ",
            communication_mode="REMOTE",
            features=["x", " ", "y" * 101],
            language_support=["EN", "english"],
            requirements='{"minimum_memory_mb": 512}',
        )
    )
    assert (made.name, made.communication_mode) == ("Agent A", "remote")
    assert (made.features, made.language_support) == (["x"], ["en"])
    assert made.requirements == AgentRequirements(minimum_memory_mb=512)
    assert made.policy_tags is None
    # What was not said is not set.
    assert "policy_tags" not in made.model_fields_set
    assert made.model_dump(exclude_none=True, exclude_unset=True)["requirements"]["minimum_memory_mb"] == 512


def test_requirements_of_requirements() -> None:
    """Rules: REG-071, REG-072"""
    field = ConfigField(name="token", label="Token", type="text")
    made = AgentRequirements(network_ports=["8080", "1-5"], required_fields=[field])
    assert made.required_fields == [field]
    assert made.requires_internet
    assert made.schema_version == "1.0"
    found = faults(AgentRequirements, network_ports=["65536"], minimum_memory_mb=0, required_fields=[{"name": "x"}])
    assert {place[0] for place in found} == {"network_ports", "minimum_memory_mb", "required_fields"}
    # The place of a fault leads through the models.
    below = faults(AgentRegistration, **changed(requirements={"minimum_memory_mb": 0}))
    assert list(below) == [("requirements", "minimum_memory_mb")]


def test_metrics() -> None:
    """Rules: REG-074"""
    made = AgentMetrics(agent_id="a-1", success_rate=0.5, custom_metric="value")
    assert made.model_dump()["custom_metric"] == "value"
    assert isinstance(made.last_active, datetime)
    when = datetime(2026, 1, 2, tzinfo=UTC)
    assert AgentMetrics(agent_id="a-1", last_active=when).last_active == when
    found = faults(AgentMetrics, agent_id="a-1", success_rate=1.5, total_requests=-1, error_rate=float("nan"))
    assert {place[0] for place in found} == {"success_rate", "total_requests", "error_rate"}


def test_a_search() -> None:
    """Rules: REG-075"""
    made = SearchRequest(query="  words ")
    assert (made.query, made.top_k, made.min_similarity, made.weighted) == ("words", 10, 0.5, False)
    found = faults(SearchRequest, query="x", top_k=0, min_similarity=2, capabilities=[], agent_type="no spaces")
    assert {place[0] for place in found} == {"query", "top_k", "min_similarity", "capabilities", "agent_type"}


def test_a_connection_request() -> None:
    """Rules: REG-077"""
    made = AgentConnectionRequest(user_id="a@b.example", user_endpoint="https://u.example", display_name=" ")
    assert (made.display_name, made.additional_info) == ("Anonymous User", {})
    found = faults(AgentConnectionRequest, user_id="u 1", user_endpoint="nowhere")
    assert {place[0] for place in found} == {"user_id", "user_endpoint"}


def test_an_error_shows_no_value() -> None:
    with pytest.raises(ValidationError) as caught:
        AgentConnectionRequest(user_id="my secret", user_endpoint="https://user:password@u.example")
    assert "secret" not in str(caught.value)
    assert "password" not in str(caught.value)


def test_three_members_make_an_agent() -> None:
    """Rules: REG-015, REG-073"""
    agent = AgentInfo.model_validate({"agent_id": "a-1", "name": "A", "status": "alive", "features": None, "new": 1})
    assert (agent.endpoint, agent.capabilities, agent.last_seen, agent.metrics) == ("", [], None, None)
    assert agent.model_dump()["new"] == 1
    assert agent == AgentInfo(agent_id="a-1", name="A", status="alive", new=1)  # type: ignore[call-arg]


def test_what_a_registry_sends_is_taken() -> None:
    """Rules: REG-005, REG-073, REG-076"""
    text = """{"agent_id": "x", "name": "n", "status": "sleeping", "agent_type": "of a later version!",
        "last_seen": "2026-11-20T15:33:53.023001", "requirements": {"minimum_memory_mb": 0, "network_ports": null},
        "metrics": {"agent_id": "x", "success_rate": 7, "total_requests": null, "own": [1]}}"""
    agent = AgentInfo.model_validate_json(text, context=READING)
    assert agent.last_seen == datetime(2026, 11, 20, 15, 33, 53, 23001)
    assert agent.requirements is not None
    assert agent.requirements.minimum_memory_mb == 0
    assert agent.metrics is not None
    assert (agent.metrics.success_rate, agent.metrics.total_requests) == (7, 0)
    assert agent.metrics.model_dump()["own"] == [1]
    found = SearchResponse.model_validate({"id": "a-1", "name": "A", "similarity": None})
    assert found.similarity is None


def test_models_are_pydantic_s() -> None:
    """Rules: REG-005"""
    made = AgentRegistration(**REGISTRATION)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert made.dict() == made.model_dump()
        assert made.dict(exclude_none=True) == REGISTRATION
        assert made.json() == made.model_dump_json()
    assert made == AgentRegistration(**REGISTRATION)
    assert AgentRegistration.model_validate_json(made.model_dump_json()) == made
    assert pickle.loads(pickle.dumps(made)) == made
    assert "capabilities" in AgentRegistration.model_json_schema()["properties"]
    with pytest.raises(ValidationError):
        AgentRegistration.model_validate("text")
