"""The envelope under the name the published SDK has for it; see `arcp.messages`."""

from arcp.messages.envelope import Envelope

__all__ = ["Envelope"]
