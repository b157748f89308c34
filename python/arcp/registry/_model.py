"""What the registry's models have in common: `dict` and `json` by their old names, and where values are checked.

The core holds every bound (`_native.registry_check`); the models hold types and documentation.
"""

import json
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, ModelWrapValidatorHandler, ValidationError, ValidationInfo, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError, to_json

from arcp import _native

READING: dict[str, Any] = {"arcp": "reading"}
"""The context of validation for what a registry sent: it is taken as it is."""


class RegistryModel(BaseModel):
    """A model of the registry's contract. Members that are not known are kept."""

    model_config = ConfigDict(
        extra="allow",
        populate_by_name=True,
        # What was wrong is said by name; values may be secret, or long.
        hide_input_in_errors=True,
        defer_build=True,
        protected_namespaces=(),
    )

    def dict(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, **options: Any
    ) -> dict[str, Any]:
        """The same as `model_dump`, which has the options (REG-005)."""
        return self.model_dump(**options)

    def json(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, **options: Any
    ) -> str:
        """The same as `model_dump_json`, which has the options."""
        return self.model_dump_json(**options)


class Checked(RegistryModel):
    """A model whose values the core checks and normalises. What a registry sent is not checked again."""

    _kind: ClassVar[str]
    """What the core calls it."""

    @model_validator(mode="wrap")
    @classmethod
    def _check(cls, value: Any, handler: ModelWrapValidatorHandler[Self], info: ValidationInfo) -> Self:
        if info.context is READING:
            return handler(without_nulls(value))
        if not isinstance(value, Mapping):
            return handler(value)
        checked = json.loads(_native.registry_check(cls._kind, _as_json(value)))
        if "errors" in checked:
            raise validation_error(cls.__name__, checked["errors"])
        # Only what was given: a default is not something that was set. What the core left alone keeps its type.
        given: dict[str, Any] = dict(value)
        for name, normalised in checked["value"].items():
            if name in given and normalised != given[name]:
                given[name] = normalised
        return handler(given)


class Received(RegistryModel):
    """A model that only registries make."""

    @model_validator(mode="wrap")
    @classmethod
    def _take(cls, value: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        return handler(without_nulls(value))


def without_nulls(value: Any) -> Any:
    """A member that is `None` is one that is missing."""
    if isinstance(value, Mapping):
        return {name: member for name, member in value.items() if member is not None}
    return value


def _as_json(value: Mapping[Any, Any]) -> str:
    try:
        return _native.encode(value, "value")
    except (TypeError, ValueError):
        # Models, dates and the like. What JSON has no form for at all becomes a text, which the check refuses by name.
        return to_json(value, inf_nan_mode="strings", fallback=lambda odd: f"<{type(odd).__name__}>").decode()


def validation_error(title: str, faults: list[dict[str, Any]]) -> ValidationError:
    """Pydantic's error with one line for each fault the core found."""
    return ValidationError.from_exception_data(title, [_line(fault) for fault in faults], hide_input=True)


def _line(fault: dict[str, Any]) -> InitErrorDetails:
    # Without a context nothing in the message is taken for a placeholder.
    return InitErrorDetails(
        type=PydanticCustomError(fault.get("type") or "value_error", fault["msg"]),
        loc=tuple(fault.get("loc") or ()),
        input=fault.get("input"),
    )
