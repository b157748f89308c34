"""What every payload has in common."""

from pydantic import BaseModel, ConfigDict


class Payload(BaseModel):
    """The payload of a message, or a part of one. Members a peer adds are kept.

    What was wrong with a value is said by its name and not by the value, which may be secret.
    """

    # Built when first used, so that importing the package stays cheap.
    model_config = ConfigDict(extra="allow", populate_by_name=True, hide_input_in_errors=True, defer_build=True)
