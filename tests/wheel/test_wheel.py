"""The wheel as its users get it: installed into a clean environment, used from outside this tree."""

import json
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import ROOT, Environment

# What the whole suite may take on a slow machine.
SUITE_BOUND_SEC = 900.0


def test_contents(wheel: Path) -> None:
    assert re.fullmatch(r"arcp-[\w.]+-cp311-abi3-\w+\.whl", wheel.name), wheel.name
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        metadata = next(name for name in names if name.endswith(".dist-info/METADATA"))
        required = re.findall(r"^Requires-Dist: (.*)$", archive.read(metadata).decode(), re.MULTILINE)
        # A list of the crates within has to name each by its place; machine code names those of the builder's crates.
        read = [name for name in names if not name.endswith((".so", ".pyd", ".cyclonedx.json"))]
        told = [name for name in read if str(ROOT).encode() in archive.read(name)]
    assert required == ["pydantic>=2.5"]
    assert told == [], "files that tell where the wheel was built"
    assert {"arcp/py.typed", "arcp/_native.pyi", "arcp/__main__.py"} <= set(names)
    assert [name for name in names if name.startswith("arcp/_native") and not name.endswith(".pyi")] != []
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)
    sources = {path.relative_to(ROOT / "python").as_posix() for path in (ROOT / "python").rglob("*.py")}
    assert {name for name in names if name.endswith(".py")} == sources
    foreign = [name for name in names if not name.startswith("arcp/") and ".dist-info/" not in name]
    assert foreign == []


def test_nothing_but_pydantic_comes_along(clean: Environment) -> None:
    source = """
import importlib.metadata, json, re
def closure(name, found):
    found.add(re.sub(r"[-_.]+", "-", name).lower())
    for required in importlib.metadata.requires(name) or ():
        if "extra ==" not in required:
            closure(re.match(r"[\\w.-]+", required).group(), found)
    return found
names = [re.sub(r"[-_.]+", "-", d.name).lower() for d in importlib.metadata.distributions()]
print(json.dumps([sorted(names), sorted(closure("pydantic", {"arcp"}))]))
"""
    installed, expected = json.loads(clean.run("python", "-c", source))
    assert installed == expected


def test_it_is_not_this_tree_that_is_imported(clean: Environment) -> None:
    source = "import arcp, arcp._native as n; print(arcp.__file__); print(n.__file__)"
    for line in clean.run("python", "-X", "dev", "-W", "error", "-c", source).splitlines():
        assert line.startswith(str(clean.bin.parent)), line


def test_every_module_imports_or_names_what_it_needs(clean: Environment) -> None:
    source = """
import importlib, json, pkgutil, arcp
failed = {}
for module in pkgutil.walk_packages(arcp.__path__, "arcp."):
    if not module.name.endswith("__main__"):
        try:
            importlib.import_module(module.name)
        except ModuleNotFoundError as error:
            failed[module.name] = error.name
print(json.dumps(failed))
"""
    # What pytest loads may need pytest.
    failed = json.loads(clean.run("python", "-W", "error", "-c", source))
    assert failed == {"arcp.pytest_plugin": "pytest", "arcp.testing.smoke": "pytest"}


@pytest.mark.parametrize(
    ("call", "package"),
    [
        ("from arcp.middleware.aiohttp import arcp_aiohttp_handler; arcp_aiohttp_handler(runtime)", "aiohttp"),
        (
            "from arcp.middleware.aiohttp import serve_arcp_aiohttp; "
            "asyncio.run(serve_arcp_aiohttp(runtime, host='127.0.0.1', port=0))",
            "aiohttp",
        ),
        (
            "from arcp.middleware.otel import with_tracing; with_tracing(arcp.pair_memory_transports()[0])",
            "opentelemetry-api",
        ),
    ],
)
def test_an_integration_without_its_host_says_what_to_install(clean: Environment, call: str, package: str) -> None:
    source = f"import arcp, arcp.testing, asyncio\nruntime = arcp.testing.make_runtime()\n{call}"
    done = clean.start("python", "-c", source)
    assert done.returncode == 1, done.stdout + done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("ModuleNotFoundError: "), done.stderr
    assert last.endswith(f"pip install {package}"), last


def test_the_program(clean: Environment) -> None:
    assert clean.run("arcp", "--version") == clean.run("python", "-m", "arcp", "--version")
    assert "completions" in clean.run("python", "-m", "arcp", "--help")
    for shell in ("bash", "zsh", "fish", "powershell", "elvish"):
        assert "arcp" in clean.run("arcp", "completions", shell)
    bash = clean.start("arcp", "completions", "bash").stdout
    (clean.folder / "arcp.bash").write_text(bash)
    ask = 'source arcp.bash; COMP_WORDS=(arcp sub); COMP_CWORD=1; _arcp arcp sub arcp; echo "${COMPREPLY[*]}"'
    assert clean.run("bash", "-c", ask).split() == ["submit"]


def test_it_is_typed(clean: Environment) -> None:
    program = clean.folder / "typed.py"
    program.write_text(
        "import arcp\n"
        "from arcp.runtime import JobContext\n"
        "async def agent(value: object, ctx: JobContext) -> int:\n"
        "    await ctx.log(level=1, message='')\n"
        "    return 1\n"
        "wrong: int = arcp.__version__\n"
    )
    command = [sys.executable, "-m", "mypy", "--strict", "--no-incremental", "--config-file=", "--python-executable"]
    done = subprocess.run(
        [*command, clean.python, program.name],
        cwd=clean.folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    lines = [line.split(": error: ")[0] for line in done.stdout.splitlines() if ": error: " in line]
    assert lines == ["typed.py:4", "typed.py:6"], done.stdout + done.stderr


def test_smoke(furnished: Environment) -> None:
    pytest_ = ["-m", "pytest", "--pyargs", "arcp.testing.smoke", "-W", "error", "-p", "no:cacheprovider"]
    assert re.search(r"\b5 passed", furnished.run("python", *pytest_))


def test_the_suite_passes_from_it(furnished: Environment) -> None:
    """Snippets, examples, the blocks of the documentation, hosts, the program: all that the tree's tests hold."""
    tree = furnished.folder / "tree"
    for part in ("tests/python", "tests/corpus", "examples", "docs"):
        shutil.copytree(ROOT / part, tree / part, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
    for file in ("README.md", "pyproject.toml"):
        shutil.copy(ROOT / file, tree / file)
    # Where links lead is a matter of the tree.
    options = ["-p", "no:cacheprovider", "--ignore", "tests/python/test_links.py"]
    done = furnished.start("python", "-m", "pytest", *options, cwd=tree, bound_sec=SUITE_BOUND_SEC)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr


def test_uninstalling_leaves_nothing(make_environment: Callable[[str], Environment], wheel: Path) -> None:
    environment = make_environment("left")
    before = environment.files()
    environment.pip("install", "--no-deps", str(wheel))
    assert environment.files() - before
    environment.pip("uninstall", "--yes", "arcp")
    assert environment.files() == before
