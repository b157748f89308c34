"""What every payload has in common."""

from pydantic import BaseModel, ConfigDict


class Payload(BaseModel):
    """The payload of a message, or a part of one. Members a peer adds are kept.

    What was wrong with a value is said by its name and not by the value, which may be secret.
    """

    model_config = ConfigDict(
        extra="allow",
        populate_by_name=True,
        hide_input_in_errors=True,
        # Built when first used, so that importing the package stays cheap.
        defer_build=True,
        # `model_use` is a member's name.
        protected_namespaces=(),
    )
