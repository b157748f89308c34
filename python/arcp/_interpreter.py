"""Refuses a sub-interpreter: the core and its objects belong to one, and another would share them unawares."""

from importlib import import_module


def _is_main() -> bool:
    # Of Python 3.13 and later, and before.
    for name in ("_interpreters", "_xxsubinterpreters"):
        try:
            module = import_module(name)
        except ImportError:
            continue
        return bool(module.get_current() == module.get_main())
    return True


if not _is_main():
    raise ImportError("arcp cannot be used in a sub-interpreter: import it in the main interpreter, or start a process")
