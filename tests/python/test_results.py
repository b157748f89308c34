"""Results an agent writes in parts."""

import asyncio
import base64
from typing import Any

import pytest

import arcp
from arcp.runtime import JobContext, ResultStream
from conftest import make_runtime, numbers_of, run, session


async def chunks_of(agent: Any, **options: Any) -> tuple[list[dict[str, Any]], Any]:
    async with session(make_runtime({"agent": agent}), **options) as client:
        handle = await client.submit(agent="agent")
        chunks = [chunk async for chunk in handle.chunks()]
        return chunks, await handle.done


def decoded(chunk: dict[str, Any]) -> bytes:
    data: str = chunk["data"]
    return base64.b64decode(data) if chunk["encoding"] == "base64" else data.encode()


def test_an_agent_writes_its_result_in_parts() -> None:
    async def agent(value: Any, ctx: JobContext) -> None:
        async with ctx.stream_result() as out:
            assert out.result_id.startswith("res_")
            for number in range(30):
                await out.write(f"line {number}\n")
            await out.write(bytes(range(256)))
            await out.write(bytearray(b"\xff"))
            await out.write(b"text", encoding="utf8")
            await out.write("bytes", encoding="base64")
            out.summary = "thirty lines"

    async def main() -> None:
        chunks, result = await chunks_of(agent)
        whole = "".join(f"line {number}\n" for number in range(30)).encode()
        whole += bytes(range(256)) + b"\xff" + b"text" + b"bytes"
        assert b"".join(decoded(chunk) for chunk in chunks) == whole
        assert [chunk["chunk_seq"] for chunk in chunks] == list(range(len(chunks)))
        assert [chunk["more"] for chunk in chunks] == [True] * (len(chunks) - 1) + [False]
        assert [chunk["encoding"] for chunk in chunks[30:34]] == ["base64", "base64", "utf8", "base64"]
        assert {chunk["result_id"] for chunk in chunks} == {result.result_id}
        assert (result.result_size, result.summary, result.result) == (len(whole), "thirty lines", None)

    run(main)


def test_chunks_do_not_show_among_the_events() -> None:
    async def agent(value: Any, ctx: JobContext) -> None:
        await ctx.log("info", "before")
        async with ctx.stream_result(result_id="res_mine", chunk_bytes=4) as out:
            await out.write("0123456789")
        await ctx.log("info", "after")

    async def main() -> None:
        async with session(make_runtime({"agent": agent})) as client:
            handle = await client.submit(agent="agent")
            events = [event.body["message"] async for event in handle.events()]
            chunks = [(chunk["result_id"], chunk["data"]) async for chunk in handle.chunks()]
            assert events == ["before", "after"]
            assert chunks == [("res_mine", "0123"), ("res_mine", "4567"), ("res_mine", "89")]
            assert [chunk async for chunk in handle.chunks()] == []

    run(main)


def test_events_and_chunks_are_read_side_by_side() -> None:
    async def agent(value: Any, ctx: JobContext) -> None:
        async with ctx.stream_result(chunk_bytes=8) as out:
            for number in range(2000):
                await ctx.progress(number)
                await out.write(f"{number:08}")

    async def main() -> None:
        async with session(make_runtime({"agent": agent})) as client:
            handle = await client.submit(agent="agent")

            async def parts() -> list[int]:
                return [int(chunk["data"]) async for chunk in handle.chunks() if chunk["data"]]

            events, chunks = await asyncio.gather(numbers_of(handle.events()), parts())
            assert events == chunks == list(range(2000))

    run(main)


def test_the_whole_result_is_put_together() -> None:
    data = bytes(range(256)) * 8192

    async def agent(value: Any, ctx: JobContext) -> None:
        async with ctx.stream_result() as out:
            await out.write(data)

    async def main() -> None:
        async with session(make_runtime({"agent": agent})) as client:
            handle = await client.submit(agent="agent")
            assert await handle.collect_chunks() == data
            assert await handle.collect_chunks() == data
            assert (await handle.done).result_size == len(data)

    run(main)


@pytest.mark.parametrize("form", ["async", "plain"])
def test_a_reader_that_is_behind_slows_the_writer(form: str) -> None:
    # More chunks than half of what a runtime keeps for a session (D-20), in one write.
    count = 55_000

    async def on_loop(value: Any, ctx: JobContext) -> None:
        async with ctx.stream_result(chunk_bytes=1) as out:
            writing = asyncio.ensure_future(out.write("x" * count))
            if not writing.done():
                with pytest.raises(RuntimeError, match="under way"):
                    out.write("y")
            await writing

    def in_thread(value: Any, ctx: JobContext) -> None:
        with ctx.stream_result(chunk_bytes=1) as out:
            out.write("x" * count)

    async def main() -> None:
        runtime = make_runtime({"async": on_loop, "plain": in_thread})
        async with session(runtime) as client:
            handle = await client.submit(agent=form)
            chunks = handle.chunks()
            taken = [(await anext(chunks))["data"]]
            while not runtime._port._calls:
                # Until the agent waits.
                await asyncio.sleep(0.01)
            assert runtime._running
            taken += [chunk["data"] async for chunk in chunks]
            assert "".join(taken) == "x" * count

    run(main)


def test_a_plain_function_writes_too() -> None:
    def agent(value: Any, ctx: JobContext) -> None:
        with ctx.stream_result() as out:
            for _ in range(64):
                out.write("x" * (1 << 18))
            out.close(summary="long")

    async def main() -> None:
        chunks, result = await chunks_of(agent)
        assert (result.result_size, result.summary) == (1 << 24, "long")
        assert sum(len(chunk["data"]) for chunk in chunks) == 1 << 24

    run(main)


def test_a_result_that_was_not_closed_ends_with_the_agent() -> None:
    async def agent(value: Any, ctx: JobContext) -> str:
        out = ctx.stream_result()
        await out.write("all of it")
        out.flush()
        return "not sent"

    async def main() -> None:
        chunks, result = await chunks_of(agent)
        assert b"".join(decoded(chunk) for chunk in chunks) == b"all of it"
        assert not chunks[-1]["more"]
        assert result.result is None

    run(main)


async def swallows(value: Any, ctx: JobContext) -> str:
    try:
        async with ctx.stream_result() as out:
            await out.write("half")
            raise KeyError("x")
    except KeyError:
        return "fine"


async def raises(value: Any, ctx: JobContext) -> None:
    async with ctx.stream_result() as out:
        await out.write("half")
        raise KeyError("x")


@pytest.mark.parametrize("agent", [swallows, raises])
def test_a_result_left_by_an_exception_is_a_failed_job(agent: Any) -> None:
    async def main() -> None:
        async with session(make_runtime({"agent": agent})) as client:
            handle = await client.submit(agent="agent")
            with pytest.raises(arcp.InternalError, match="KeyError"):
                await handle.collect_chunks()
            with pytest.raises(arcp.InternalError, match="KeyError"):
                await handle.done

    run(main)


def test_a_write_cut_short_is_a_failed_job() -> None:
    async def agent(value: Any, ctx: JobContext) -> str:
        out = ctx.stream_result(chunk_bytes=1)
        writing = asyncio.ensure_future(out.write("x" * 60_000))
        with pytest.raises(RuntimeError, match="under way"):
            out.close()
        await asyncio.sleep(0)
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing
        await out.close()
        return "fine"

    async def main() -> None:
        async with session(make_runtime({"agent": agent})) as client:
            handle = await client.submit(agent="agent")
            with pytest.raises(arcp.InternalError, match="CancelledError"):
                await handle.done

    run(main)


def test_a_result_longer_than_may_be_held_is_taken_by_chunks() -> None:
    async def main() -> None:
        told = asyncio.Event()

        async def agent(value: Any, ctx: JobContext) -> None:
            async with ctx.stream_result(chunk_bytes=50_000) as out:
                await out.write("x" * 50_000)
                out.flush()
                await told.wait()
                await out.write("x" * 50_001)

        async with session(make_runtime({"agent": agent}), max_result_bytes=100_000) as client:
            handle = await client.submit(agent="agent")
            chunks = handle.chunks()
            sizes = [len((await anext(chunks))["data"])]
            # From here on the result is the reader's to put together.
            told.set()
            sizes += [len(chunk["data"]) async for chunk in chunks]
            assert sizes == [50_000, 50_000, 1]
            assert (await handle.done).result_size == 100_001
            with pytest.raises(arcp.InvalidRequestError, match="chunk"):
                await handle.collect_chunks()

            handle = await client.submit(agent="agent")
            with pytest.raises(arcp.InvalidRequestError, match="max_result_bytes"):
                await handle.collect_chunks()

    run(main)


def test_chunks_made_by_hand() -> None:
    async def agent(value: Any, ctx: JobContext) -> None:
        body = {"result_id": "res_1", "chunk_seq": 0, "data": "one", "encoding": "utf8", "more": False}
        await ctx.result_chunk(body)
        with pytest.raises(arcp.InvalidRequestError, match="complete"):
            await ctx.result_chunk(body | {"result_id": "res_2", "chunk_seq": 1})

    async def main() -> None:
        chunks, result = await chunks_of(agent)
        assert chunks[0]["data"] == "one"
        assert (result.result_id, result.result_size) == ("res_1", 3)

    run(main)


def test_a_client_without_the_feature_gets_the_whole_at_once() -> None:
    async def agent(value: Any, ctx: JobContext) -> None:
        async with ctx.stream_result() as out:
            await out.write("one ")
            await out.write("two")

    async def main() -> None:
        chunks, result = await chunks_of(agent, features=["progress"])
        assert chunks == []
        assert (result.result, result.result_id) == ("one two", None)

    run(main)


def test_what_a_stream_refuses() -> None:
    seen: list[str] = []

    async def agent(value: Any, ctx: JobContext) -> None:
        with pytest.raises(ValueError, match="chunk_bytes"):
            ctx.stream_result(chunk_bytes=0)
        with pytest.raises(TypeError, match="result_id"):
            ctx.stream_result(result_id=3)  # type: ignore[arg-type]
        out = ctx.stream_result()
        assert isinstance(out, ResultStream)
        with pytest.raises(arcp.InvalidRequestError):
            ctx.stream_result()
        with pytest.raises(TypeError, match="int"):
            out.write(3)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="latin"):
            out.write("", encoding="latin-1")
        with pytest.raises(UnicodeDecodeError):
            out.write(b"\xff", encoding="utf8")
        await out.close()
        await out.close()
        with pytest.raises(arcp.InvalidRequestError, match="open"):
            out.write("late")
        seen.append("all")

    async def main() -> None:
        await chunks_of(agent)
        assert seen == ["all"]

    run(main)
