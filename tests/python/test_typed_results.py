"""Results as the type that was asked for, and inputs that are models."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

import arcp
from arcp.client import JobHandle
from arcp.runtime import JobContext
from conftest import make_runtime, run, session


class Report(BaseModel):
    title: str
    pages: int
    made: datetime


@dataclass
class Point:
    x: int
    y: int


REPORT = {"title": "weekly", "pages": 3, "made": "2026-05-13T19:30:00Z"}


async def echo(value: Any, ctx: JobContext) -> Any:
    return value


async def streams(value: Any, ctx: JobContext) -> None:
    async with ctx.stream_result() as result:
        await result.write(value)


async def fails(value: Any, ctx: JobContext) -> None:
    raise arcp.PermissionDeniedError("no")


async def submitted(client: arcp.ARCPClient, agent: str, value: Any, kind: Any = None) -> JobHandle[Any]:
    return await client.submit(agent=agent, input=value, result_type=kind)


def test_results_are_validated() -> None:
    async def main() -> None:
        async with session(make_runtime({"echo": echo})) as client:
            handle = await client.submit(agent="echo", input=REPORT, result_type=Report)
            assert isinstance(handle, JobHandle)
            report = await handle.result()
            assert isinstance(report, Report)
            assert (report.pages, report.made.year) == (3, 2026)
            assert (await handle.done).result == report
            assert await (await submitted(client, "echo", {"x": 1, "y": 2}, Point)).result() == Point(1, 2)
            assert await (await submitted(client, "echo", [1, 2], tuple[int, ...])).result() == (1, 2)
            assert await (await submitted(client, "echo", None, type(None))).result() is None
            assert await (await submitted(client, "echo", REPORT)).result() == REPORT

    run(main)


def test_a_result_of_another_shape_is_refused() -> None:
    async def main() -> None:
        async with session(make_runtime({"echo": echo})) as client:
            handle = await client.submit(agent="echo", input={"title": "weekly"}, result_type=Report)
            for _ in range(2):
                with pytest.raises(ValidationError, match="pages"):
                    await handle.done
            with pytest.raises(ValidationError):
                await handle.result()
            with pytest.raises(ValidationError):
                await (await submitted(client, "echo", None, int)).done

    run(main)


def test_streamed_results_are_read_as_json() -> None:
    async def main() -> None:
        async with session(make_runtime({"streams": streams})) as client:
            text = Report.model_validate(REPORT).model_dump_json()
            handle = await client.submit(agent="streams", input=text, result_type=Report)
            report = await handle.result()
            assert report.title == "weekly"
            end = await handle.done
            assert end.result is None
            assert end.result_size == len(text)
            assert await (await submitted(client, "streams", "[1]")).result() == [1]
            with pytest.raises(arcp.InvalidRequestError, match="JSON"):
                await (await submitted(client, "streams", "no json")).result()

    run(main)


def test_a_failed_job_raises_its_error() -> None:
    async def main() -> None:
        async with session(make_runtime({"fails": fails})) as client:
            handle = await client.submit(agent="fails", result_type=Report)
            with pytest.raises(arcp.PermissionDeniedError):
                await handle.result()

    run(main)


def test_a_model_is_an_input() -> None:
    async def main() -> None:
        async with session(make_runtime({"echo": echo})) as client:
            report = Report.model_validate(REPORT)
            handle = await client.submit(agent="echo", input=report, result_type=Report)
            assert await handle.result() == report

    run(main)


@pytest.mark.parametrize(
    ("patterns", "texts", "amounts"),
    [
        (["USD:1.00"], {"USD": "USD:1.00"}, {"USD": "1.00"}),
        (["USD:5"], {"USD": "USD:5"}, {"USD": "5"}),
        (["USD:1.0", "USD:0.255", "EUR:2.50"], {"USD": "USD:1.255", "EUR": "EUR:2.50"}, {"USD": "1.255", "EUR": "2.5"}),
        (["USD:0.75", "USD:0.25"], {"USD": "USD:1.00"}, {"USD": "1"}),
    ],
)
def test_a_budget_reads_as_the_lease_writes_it(
    patterns: list[str], texts: dict[str, str], amounts: dict[str, str]
) -> None:
    async def main() -> None:
        async with session(make_runtime({"echo": echo})) as client:
            handle = await client.submit(agent="echo", lease_request={"cost.budget": patterns})
            assert handle.budget == texts
            assert handle.budget_amounts == {currency: Decimal(amount) for currency, amount in amounts.items()}
            assert (await client.submit(agent="echo")).budget is None

    run(main)
