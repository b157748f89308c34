"""Every public name says what it is, and what docstrings show is tried."""

import ast
import doctest
import importlib
import inspect
import pkgutil
import re
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import arcp
from test_docs import URL, Block, script


def public_modules() -> Iterator[ModuleType]:
    """Those without an underscore anywhere in their path."""
    yield arcp
    for found in pkgutil.walk_packages(arcp.__path__, "arcp."):
        if not any(part.startswith("_") for part in found.name.split(".")):
            yield importlib.import_module(found.name)


MODULES = list(public_modules())


def described_in_source(module: ModuleType) -> set[str]:
    """Names with a text right behind them, as constants and attributes are described: `NAME`, `Class.name`."""
    names: set[str] = set()

    def look(body: list[ast.stmt], prefix: str) -> None:
        for statement, behind in zip(body, [*body[1:], None], strict=True):
            if isinstance(statement, ast.ClassDef):
                look(statement.body, f"{prefix}{statement.name}.")
            target: ast.expr | None = statement.target if isinstance(statement, ast.AnnAssign) else None
            if isinstance(statement, ast.Assign):
                target = statement.targets[0]
            if (
                isinstance(target, ast.Name)
                and isinstance(behind, ast.Expr)
                and isinstance(behind.value, ast.Constant)
                and isinstance(behind.value.value, str)
            ):
                names.add(prefix + target.id)

    look(source_of(module).body, "")
    return names


def source_of(module: ModuleType) -> ast.Module:
    """Of the compiled core its stub, which has the texts."""
    is_core = module.__name__ == "arcp._native"
    path = Path(arcp.__path__[0]) / "_native.pyi" if is_core else Path(inspect.getfile(module))
    return ast.parse(path.read_text(encoding="utf-8"))


def home_of(module: ModuleType, name: str) -> ModuleType:
    """Where a constant is made: the module that has it, or the first it was imported from."""
    for statement in ast.walk(source_of(module)):
        if isinstance(statement, ast.ImportFrom) and statement.module is not None:
            for alias in statement.names:
                if (alias.asname or alias.name) == name and statement.module.startswith("arcp"):
                    return home_of(importlib.import_module(statement.module), alias.name)
    return module


def undescribed(module: ModuleType) -> list[str]:
    missing = [] if module.__doc__ else [module.__name__]
    for name in getattr(module, "__all__", ()):
        value = getattr(module, name)
        if inspect.isclass(value) and (value.__module__ or "").startswith("arcp"):
            missing += [f"{name}.{member}" if member else name for member in undescribed_members(value)]
        elif inspect.isroutine(value):
            missing += [] if value.__doc__ else [name]
        else:
            missing += [] if name in described_in_source(home_of(module, name)) else [name]
    return missing


def undescribed_members(cls: type) -> list[str]:
    """The class itself as an empty name, and what it or a base of ours defines."""
    missing = [] if vars(cls).get("__doc__") else [""]
    for base in cls.__mro__:
        if not base.__module__.startswith("arcp"):
            continue
        for name, member in vars(base).items():
            if name.startswith("_"):
                continue
            value: Any = member.__func__ if isinstance(member, classmethod | staticmethod) else member
            is_ours = inspect.isroutine(value) or isinstance(value, property)
            # An event is a mapping, and has a mapping's methods.
            if is_ours and not getattr(value, "__doc__", None) and name not in vars(Mapping):
                missing.append(name)
    return missing


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_every_public_name_is_described(module: ModuleType) -> None:
    assert undescribed(module) == []


def docstrings(module: ModuleType) -> Iterator[tuple[str, str]]:
    """Of a module and everything it defines."""
    for node in ast.walk(source_of(module)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text is not None:
                yield getattr(node, "name", module.__name__), text


_INDENTED = re.compile(r"(?<=\n\n)(?:    .*\n|\n)*    .*")


def examples(module: ModuleType) -> list[tuple[str, str]]:
    """Blocks of Python, which are indented behind a blank line; JSON and what stands at a prompt are not among them."""
    return [
        (name, textwrap.dedent(block))
        for name, text in docstrings(module)
        for block in _INDENTED.findall(text)
        if not block.lstrip().startswith((">>>", "{"))
    ]


EXAMPLES = [(module, name, source) for module in MODULES for name, source in examples(module)]


@pytest.mark.parametrize(("module", "name", "source"), EXAMPLES, ids=lambda part: getattr(part, "__name__", None))
def test_an_example_is_python(module: ModuleType, name: str, source: str, tmp_path: Path) -> None:
    """One that speaks to a runtime is run against one."""
    compile(source, f"{module.__name__}:{name}", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    if URL in source:
        script(Block(name, "", source, None), tmp_path)


def test_examples_at_a_prompt() -> None:
    tried = 0
    for module in MODULES:
        outcome = doctest.testmod(module)
        assert outcome.failed == 0, module.__name__
        tried += outcome.attempted
    assert tried > 0


def test_what_is_missing_is_noticed() -> None:
    class Silent:
        def speak(self) -> None:
            pass

    Silent.__module__ = "arcp.silent"
    assert undescribed_members(Silent) == ["", "speak"]
