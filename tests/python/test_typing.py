"""The package under type checkers: what `typed_usage.py` asserts, under mypy and pyright at their strictest."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import arcp

USAGE = Path(__file__).parent / "typed_usage.py"


def check(*command: str, folder: Path) -> None:
    ran = subprocess.run([sys.executable, "-m", *command], cwd=folder, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_mypy(tmp_path: Path) -> None:
    shutil.copy(USAGE, tmp_path)
    check("mypy", "--strict", "--warn-unreachable", USAGE.name, folder=tmp_path)


def test_pyright(tmp_path: Path) -> None:
    shutil.copy(USAGE, tmp_path)
    config = {
        "include": [USAGE.name],
        "extraPaths": [str(Path(arcp.__file__).parents[1])],
        "typeCheckingMode": "strict",
        "reportUnnecessaryTypeIgnoreComment": True,
        # Those are for mypy.
        "enableTypeIgnoreComments": False,
    }
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(config))
    check("pyright", "--pythonpath", sys.executable, folder=tmp_path)
