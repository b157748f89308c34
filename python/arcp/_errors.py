"""The errors under the name the published SDK has for them; see `arcp.errors`."""

from arcp.errors import *  # noqa: F403
from arcp.errors import __all__ as __all__
