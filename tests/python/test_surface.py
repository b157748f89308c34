"""The public surface, beside the one its contract has: `surface_table.toml`, strictly both ways."""

import importlib
import inspect
import tomllib
from typing import Any

import pytest
from pydantic import BaseModel

import surface_reader

TABLE = tomllib.loads(surface_reader.TABLE.read_text())


def listed(entry: dict[str, list[str]]) -> set[str]:
    return {*entry.get("contract", ()), *entry.get("more", ())}


def value(key: str) -> Any:
    module, _, name = key.rpartition(".")
    return getattr(importlib.import_module(module), name)


def is_later(entry: Any) -> bool:
    return isinstance(entry, dict) and entry.get("later", False)


def test_every_module_is_in_the_table() -> None:
    modules = {name for name, entry in TABLE["modules"].items() if listed(entry)}
    assert set(surface_reader.modules()) == modules


@pytest.mark.parametrize("module", [name for name, entry in TABLE["modules"].items() if listed(entry)])
def test_names(module: str) -> None:
    entry = TABLE["modules"][module]
    assert surface_reader.names(module) == listed(entry)
    for name in listed(entry):
        value(f"{module}.{name}")
    came = {name for name in entry.get("later", ()) if hasattr(importlib.import_module(module), name)}
    assert not came, "no longer later: these belong under `contract`"


@pytest.mark.parametrize("key", TABLE["details"])
def test_signatures_and_members(key: str) -> None:
    entry, found = TABLE["details"][key], value(key)
    if "call" in entry:
        check(key, entry["call"], surface_reader.signature(found))
    members = entry.get("members", {})
    if inspect.isclass(found) and not issubclass(found, BaseModel):
        assert surface_reader.members(found) == {name for name, member in members.items() if not is_later(member)}
    for name, member in members.items():
        if not is_later(member):
            check(f"{key}.{name}", member, surface_reader.shape(found, name))


def check(key: str, entry: str | dict[str, Any], found: str) -> None:
    contract, ours = (entry, entry) if isinstance(entry, str) else (entry.get("contract"), entry["ours"])
    assert found == ours, key
    if contract not in (None, ours, "(...)"):
        later = entry.get("without", []) if isinstance(entry, dict) else []
        documented, taken = parameters(contract), parameters(ours)
        assert not {p.name for p in taken} & set(later), f"{key}: no longer without these"
        takes(key, [p for p in documented if p.name not in later], taken)


def takes(key: str, contract: list[inspect.Parameter], ours: list[inspect.Parameter]) -> None:
    """Every documented call is a call of ours: with all arguments, and with those that have no default."""
    for needed in (True, False):
        given = [p for p in contract if p.kind is not p.VAR_KEYWORD and (needed or p.default is p.empty)]
        positional = [p.name for p in given if p.kind is p.POSITIONAL_OR_KEYWORD]
        keywords = {p.name: p.name for p in given if p.kind is p.KEYWORD_ONLY}
        try:
            inspect.Signature(ours).bind(*positional, **keywords)
        except TypeError as error:
            pytest.fail(f"{key}: {error}")


def parameters(text: str) -> list[inspect.Parameter]:
    """A signature of the table; in a model, arguments without a default may follow such with one."""
    scope: dict[str, Any] = {}
    exec(f"def f{text.replace('<', repr('<')).replace('>', '')}: ...", scope)
    return list(inspect.signature(scope["f"]).parameters.values())


def test_classes_and_functions_of_the_main_modules_have_details() -> None:
    described = {id(value(key)) for key in TABLE["details"]}
    for module in surface_reader.DETAILED:
        for name in surface_reader.names(module):
            found = value(f"{module}.{name}")
            if surface_reader.is_described(found):
                assert id(found) in described, f"{module}.{name}: no details"


def test_what_is_documented_twice_is_one_thing() -> None:
    for name in ("ARCPClient", "ARCPRuntime", "LeaseConstraints", "MemoryTransport", "Transport", "ConnectionError"):
        places = ("arcp", "arcp.client", "arcp.runtime", "arcp.transport", "arcp.errors")
        offering = [place for place in places if name in surface_reader.names(place)]
        assert len(offering) >= 2, name
        assert len({id(value(f"{place}.{name}")) for place in offering}) == 1, name


def test_every_public_name_has_a_docstring() -> None:
    for key in TABLE["details"]:
        found = value(key)
        assert found.__doc__, key
        for name in TABLE["details"][key].get("members", {}):
            member = inspect.getattr_static(found, name, None)
            if callable(member) or isinstance(member, property):
                assert member.__doc__, f"{key}.{name}"
