"""The registry half: the published clients against our registry, our client against the published one.

Rules: REG-023, REG-055, REG-056, REG-059, REG-600, REG-601, REG-608
"""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "registry"))

from golden import Agents  # noqa: E402
from servers import clean, published_python, running  # noqa: E402

PATIENCE = 120


def play(name: str, kind: str, client: list[str | Path]) -> bool:
    """One client, one fresh registry, and an agent that can be reached."""
    agents = Agents()
    try:
        with tempfile.TemporaryDirectory(prefix="arcp-interop-") as folder, running(kind, Path(folder)) as server:
            command = [*client, server.url, f"{agents.url}/ok"]
            done = subprocess.run(
                command, env=clean(), cwd=folder, capture_output=True, text=True, timeout=PATIENCE, check=False
            )
    finally:
        agents.close()
    print(f"{name}: {'ok' if done.returncode == 0 else 'FAILED'}")
    print(*(f"  {line}" for line in done.stdout.splitlines()), sep="\n", end="\n" if done.stdout else "")
    if done.returncode != 0:
        print(done.stderr, file=sys.stderr)
    return done.returncode == 0


def plays() -> Iterator[bool]:
    theirs = published_python("2.0.3")
    yield play("their registry client 2.0.3, our registry", "ours", [theirs, HERE / "their_registry_client.py"])
    newer = published_python("2.1.2")
    yield play("their registry client 2.1.2, our registry", "ours", [newer, HERE / "their_newer_registry_client.py"])
    ours = Path(sys.executable)
    yield play("our registry client, their registry 2.0.3", "published", [ours, HERE / "our_registry_client.py"])


if __name__ == "__main__":
    if not all(list(plays())):
        sys.exit(1)
