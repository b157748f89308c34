"""Reads the public surface of the package: its modules' names, and the signatures and members behind them.

Run as a program, it prints what `surface_table.toml` would have to say about names that are not there yet.
"""

import importlib
import inspect
import json
import pkgutil
import tomllib
from pathlib import Path
from typing import Any

from pydantic import BaseModel

import arcp

TABLE = Path(__file__).parent / "surface_table.toml"
DETAILED = ("arcp.client", "arcp.errors", "arcp.messages", "arcp.runtime", "arcp.transport")
"""Modules whose classes and functions are described one by one."""

# Private modules that programs written for the published SDK import.
ALIASES = ("arcp._envelope", "arcp._errors", "arcp._messages", "arcp._ulid")


def modules() -> list[str]:
    """The public modules and the private ones with a public use."""
    found = ["arcp"]
    for module in pkgutil.walk_packages(arcp.__path__, "arcp."):
        private = any(part.startswith("_") for part in module.name.split(".")[1:])
        # What the parts of these offer is offered there.
        part = module.name.startswith(("arcp.messages.", "arcp.registry."))
        if module.name.startswith(ALIASES) or not (private or part or not names(module.name)):
            found.append(module.name)
    return sorted(found)


def names(module: str) -> set[str]:
    """What a module offers."""
    return set(getattr(importlib.import_module(module), "__all__", ()))


def signature(value: Any) -> str:
    """Parameters and defaults, without `self` and without types."""
    if inspect.isclass(value) and issubclass(value, BaseModel):
        # A model has its signature once it is built.
        value.model_rebuild()
    parameters = [p.replace(annotation=p.empty) for p in inspect.signature(value).parameters.values()]
    if parameters and parameters[0].name in ("self", "cls"):
        del parameters[0]
    return str(inspect.Signature(parameters)).replace("<factory>", "...")


def shape(cls: type, name: str) -> str:
    """What a member is: a signature, `property` or `field`."""
    member = inspect.getattr_static(cls, name, None)
    if isinstance(member, staticmethod | classmethod):
        return signature(getattr(cls, name))
    if callable(member):
        return signature(member)
    if member is None or isinstance(member, type(None) | str | int | float | bool | tuple):
        return "field"
    # A slot of a dataclass is a field too.
    return "field" if inspect.ismemberdescriptor(member) else "property"


def members(cls: type) -> set[str]:
    """Public members that are ours: of the class, its bases of this package, and its annotations."""
    found: set[str] = set()
    for base in cls.__mro__:
        if base.__module__.split(".")[0] == "arcp":
            found |= {name for name in (*vars(base), *inspect.get_annotations(base)) if not name.startswith("_")}
    return found


def is_described(value: Any) -> bool:
    """Whether the table has details of it."""
    return inspect.isfunction(value) or (inspect.isclass(value) and not issubclass(value, Exception))


def main() -> None:
    table = tomllib.loads(TABLE.read_text())
    for module in modules():
        entry = table["modules"].get(module, {})
        if more := names(module) - {*entry.get("contract", ()), *entry.get("more", ())}:
            print(f"[modules.{json.dumps(module)}]\nmore = {json.dumps(sorted(more))}")
    known = {
        id(getattr(importlib.import_module(key.rpartition(".")[0]), key.rpartition(".")[2])) for key in table["details"]
    }
    for module in DETAILED:
        for name in sorted(names(module)):
            value = getattr(importlib.import_module(module), name)
            if is_described(value) and id(value) not in known:
                print(f"[details.{json.dumps(f'{module}.{name}')}]\ncall = {{ ours = {json.dumps(signature(value))} }}")
                if inspect.isclass(value) and not issubclass(value, BaseModel):
                    print(f"[details.{json.dumps(f'{module}.{name}')}.members]")
                    for member in sorted(members(value)):
                        print(f"{member} = {{ ours = {json.dumps(shape(value, member))} }}")


if __name__ == "__main__":
    main()
