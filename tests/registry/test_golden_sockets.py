"""Every recorded socket, played again: greetings, authentication and acknowledgements letter by letter.

Rules: REG-300, REG-310, REG-311, REG-312, REG-313, REG-314, REG-315, REG-316, REG-317, REG-318, REG-330, REG-331,
REG-332, REG-333, REG-334, REG-335, REG-340, REG-341, REG-342, REG-343, REG-344, REG-345, REG-346, REG-347, REG-348
"""

import pytest

import differences
import golden
from conftest import Recordings

FILES = sorted(path.name for path in golden.FOLDER.glob("ws-*.json"))
WANTED = differences.load()


@pytest.mark.parametrize(
    "exchange", [f"{name}#{entry['id']}" for name in FILES for entry in golden.load(name)["entries"]]
)
def test_socket(exchange: str, recordings: Recordings, kind: str) -> None:
    found = recordings.played_sockets.result().found[exchange]
    if isinstance(found, Exception):
        raise found
    wrong = differences.judge(exchange, found, WANTED if kind == "ours" else [])
    assert not wrong, "\n".join(wrong)
