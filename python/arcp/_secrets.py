"""Keeps secrets that are known out of what is logged and told."""

import traceback
from collections.abc import Iterable

HIDDEN = "***"


def hide(text: str, secrets: Iterable[str]) -> str:
    """The text with every secret replaced, the longest first, since one may begin with another."""
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    return text


class _Scrubbed(Exception):
    """Stands in a log for an exception whose texts hold a secret."""


def without_secrets(error: BaseException, secrets: Iterable[str]) -> BaseException:
    """The error, for a log; one that shows the same traceback without the secrets, where that holds any."""
    secrets = list(secrets)
    if not any(secrets):
        return error
    text = "".join(traceback.format_exception(error))
    hidden = hide(text, secrets)
    return error if hidden == text else _Scrubbed(hidden)
