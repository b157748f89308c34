"""Every recorded exchange, played again.

Rules: REG-100, REG-102, REG-103, REG-104, REG-110, REG-111, REG-112, REG-113, REG-114, REG-118, REG-120, REG-123,
REG-124, REG-125, REG-131, REG-132, REG-134, REG-136, REG-140, REG-141, REG-142, REG-143, REG-144, REG-145, REG-146,
REG-150, REG-151, REG-153, REG-154, REG-155, REG-156, REG-157, REG-160, REG-161, REG-162, REG-163, REG-170, REG-171,
REG-172, REG-173, REG-174, REG-175, REG-176, REG-177, REG-178, REG-179, REG-182, REG-183, REG-184, REG-185, REG-186,
REG-187, REG-188, REG-189, REG-180, REG-181, REG-190, REG-192, REG-194, REG-195, REG-203
"""

import pytest

import differences
import golden
from conftest import Recordings

FILES = sorted(path.name for path in golden.FOLDER.glob("*.json") if not path.name.startswith(("ws-", "client")))
WANTED = differences.load()


@pytest.mark.parametrize(
    "exchange", [each for name in FILES if "needs" not in golden.load(name) for each in golden.exchanges(name)]
)
def test_exchange(exchange: str, recordings: Recordings, kind: str) -> None:
    found = recordings.of(exchange).found[exchange]
    if isinstance(found, Exception):
        raise found
    wrong = differences.judge(exchange, found, WANTED if kind == "ours" else [])
    assert not wrong, "\n".join(wrong)


def test_differences_name_exchanges_and_rules() -> None:
    known = {each for path in golden.FOLDER.glob("*.json") for each in golden.exchanges(path.name)}
    sockets = {
        f"{path.name}#{entry['id']}"
        for path in golden.FOLDER.glob("ws-*.json")
        for entry in golden.load(path.name)["entries"]
    }
    for entry in WANTED:
        assert entry.why.strip(), entry
        assert entry.rule.startswith(("REG-", "D-")), entry
        assert set(entry.exchanges) <= known | sockets, entry
