"""Payloads of sessions under the name the published SDK has for them; see `arcp.messages`."""

from arcp.messages.session import *  # noqa: F403
from arcp.messages.session import __all__ as __all__
