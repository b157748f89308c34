"""Reads the public surface of the package: its modules' names, and the signatures and members behind them."""

import importlib
import inspect
import pkgutil
from typing import Any

from pydantic import BaseModel

import arcp

# Private modules that programs written for the published SDK import.
ALIASES = ("arcp._envelope", "arcp._errors", "arcp._messages", "arcp._ulid")


def modules() -> list[str]:
    """The public modules and the private ones with a public use."""
    found = ["arcp"]
    for module in pkgutil.walk_packages(arcp.__path__, "arcp."):
        private = any(part.startswith("_") for part in module.name.split(".")[1:])
        # What the parts of `arcp.messages` offer is offered there.
        part = module.name.startswith("arcp.messages.")
        if module.name.startswith(ALIASES) or not (private or part):
            found.append(module.name)
    return sorted(found)


def names(module: str) -> set[str]:
    """What a module offers."""
    return set(importlib.import_module(module).__all__)


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
