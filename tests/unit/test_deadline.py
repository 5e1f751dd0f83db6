"""Promises of the deadline over a task: it ends what takes too long, and swallows nobody else's cancellation."""

import asyncio

import pytest

from llm_gate.engine.deadline import Deadline


def test_what_is_in_time_passes():
    """Work that ends in time gives its result, and the task is not cancelled afterwards."""

    async def work():
        with Deadline(0.02):
            result = 7
        await asyncio.sleep(0.04)
        return result

    assert asyncio.run(work()) == 7


def test_what_takes_too_long_ends_with_timeout_error():
    """Work that takes too long is cancelled; the task itself goes on as if nothing had been."""

    async def work():
        with pytest.raises(TimeoutError), Deadline(0.01):
            await asyncio.sleep(5)
        await asyncio.sleep(0)
        return asyncio.current_task().cancelling()

    assert asyncio.run(work()) == 0


def test_an_inner_deadline_does_not_pass_for_the_outer_one():
    """Of two deadlines the one that passed ends its own block only."""

    async def work():
        with Deadline(5):
            with pytest.raises(TimeoutError), Deadline(0.01):
                await asyncio.sleep(5)
            return "the outer block goes on"

    assert asyncio.run(work()) == "the outer block goes on"


def test_cancelling_from_outside_stays_a_cancellation():
    """Whoever cancels the task is obeyed, also when the deadline passes at the same time."""

    async def work(after_s):
        with Deadline(after_s):
            await asyncio.sleep(5)

    async def cancel(after_s):
        task = asyncio.create_task(work(after_s))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return task.cancelled()

    async def cancel_at_once_with_the_deadline():
        task = asyncio.create_task(work(0.0))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises((asyncio.CancelledError, TimeoutError)):
            await task
        return task.done()

    assert asyncio.run(cancel(5)) is True
    assert asyncio.run(cancel_at_once_with_the_deadline()) is True


def test_an_error_of_the_work_gets_through():
    """What the work raises is not touched."""

    async def work():
        with Deadline(5):
            raise ValueError("of the work")

    with pytest.raises(ValueError, match="of the work"):
        asyncio.run(work())
