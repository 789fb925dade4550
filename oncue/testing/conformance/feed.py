"""`append` and `read`: an ordered feed that can be resumed, written only under the current lease."""

from __future__ import annotations

from datetime import timedelta

import pytest

from oncue.engine import MAX_BATCH, Engine
from oncue.job import Claimed, FeedItem, FeedKind, Lease, Outcome
from oncue.testing.conformance.base import Conformance
from oncue.testing.conformance.steps import (
    BOOM,
    advance,
    end,
    info,
    pass_leases,
    put_one,
    start,
    take_one,
)

__all__ = ["FeedConformance"]


def item(claimed: Claimed, ordinal: int, body: bytes = b"", kind: FeedKind = FeedKind.LOG) -> FeedItem:
    """Return an item of an attempt's feed."""
    return FeedItem(claimed.lease.token, ordinal, kind, body)


def progress(claimed: Claimed, ordinal: int, body: bytes) -> FeedItem:
    """Return a progress of an attempt."""
    return item(claimed, ordinal, body, FeedKind.PROGRESS)


async def bodies(engine: Engine, job_id: str = "j", after: str | None = None) -> list[bytes]:
    """Read the bodies of a feed."""
    return [one.body for one in await engine.read(job_id, after=after)]


class FeedConformance(Conformance):
    """Cases of `append` and `read`."""

    async def test_a_job_without_feed_reads_as_empty(self, engine: Engine) -> None:
        await put_one(engine, "j")
        assert await engine.read("j") == []
        assert await engine.read("unknown") == []
        assert await engine.read("unknown", after="1-1") == []

    async def test_items_read_as_they_were_appended(self, engine: Engine) -> None:
        claimed = await start(engine, "j")
        items = [
            item(claimed, 1, b"a log line", FeedKind.LOG),
            item(claimed, 2, b"\x00\xff", FeedKind.STREAM),
            item(claimed, 3, b"", FeedKind.STREAM),
            item(claimed, 4, b"half", FeedKind.PROGRESS),
        ]
        assert await engine.append(claimed.lease, items) is True
        read = await engine.read("j")
        assert [one._replace(at=None) for one in read] == items
        assert [one.kind for one in read] == [FeedKind.LOG, FeedKind.STREAM, FeedKind.STREAM, FeedKind.PROGRESS]

    async def test_items_carry_the_time_of_the_store(self, engine: Engine) -> None:
        claimed = await start(engine, "j")
        advance(engine, 1000)
        await engine.append(claimed.lease, [item(claimed, 1)])
        (read,) = await engine.read("j")
        assert read.at is not None
        assert timedelta(seconds=1000) <= read.at - claimed.started_at < timedelta(seconds=1060)

    async def test_appending_nothing_is_answered_as_the_lease_stands(self, engine: Engine) -> None:
        claimed = await start(engine, "j")
        assert await engine.append(claimed.lease, []) is True
        assert await engine.append(claimed.lease._replace(nonce=b"wrong"), []) is False
        assert await engine.read("j") == []

    async def test_a_feed_is_read_in_order(self, engine: Engine) -> None:
        claimed = await start(engine, "j")
        for first in range(1, 40, 4):
            items = [item(claimed, ordinal, str(ordinal).encode()) for ordinal in range(first, first + 4)]
            assert await engine.append(claimed.lease, items)
        assert await bodies(engine) == [str(ordinal).encode() for ordinal in range(1, 41)]

    async def test_a_feed_is_ordered_by_number_and_not_by_its_text(self, engine: Engine) -> None:
        claimed = await start(engine, "j")
        ordinals = [0, 1, 9, 10, 11, 99, 100, 101, 999, 1000]
        assert await engine.append(
            claimed.lease, [item(claimed, ordinal, str(ordinal).encode()) for ordinal in ordinals]
        )
        assert [one.ordinal for one in await engine.read("j")] == ordinals
        after = item(claimed, 9).cursor
        assert [one.ordinal for one in await engine.read("j", after=after)] == ordinals[3:]

    @pytest.mark.parametrize("largest", [2**31 + 2, 2**53 + 2, 2**63 - 1], ids=["2^31", "2^53", "2^63"])
    async def test_a_feed_may_be_numbered_with_64_bits(self, engine: Engine, largest: int) -> None:
        claimed = await start(engine, "j")
        ordinals = list(range(largest - 4, largest + 1))
        assert await engine.append(claimed.lease, [item(claimed, ordinal) for ordinal in ordinals])
        read = await engine.read("j")
        assert [one.ordinal for one in read] == ordinals
        assert [one.ordinal for one in await engine.read("j", after=read[2].cursor)] == ordinals[3:]

    async def test_reading_goes_on_behind_a_cursor(self, engine: Engine) -> None:
        claimed = await start(engine, "j")
        await engine.append(claimed.lease, [item(claimed, ordinal, b"%d" % ordinal) for ordinal in (1, 2, 3)])
        read = await engine.read("j")
        assert await bodies(engine, after=read[0].cursor) == [b"2", b"3"]
        assert await bodies(engine, after=read[2].cursor) == []
        await engine.append(claimed.lease, [item(claimed, 4, b"4")])
        assert await bodies(engine, after=read[2].cursor) == [b"4"]

    async def test_a_feed_is_read_in_pages(self, engine: Engine) -> None:
        claimed = await start(engine, "j")
        await engine.append(claimed.lease, [item(claimed, ordinal) for ordinal in range(1, 11)])
        page = await engine.read("j", limit=4)
        assert [one.ordinal for one in page] == [1, 2, 3, 4]
        page = await engine.read("j", limit=4, after=page[-1].cursor)
        assert [one.ordinal for one in page] == [5, 6, 7, 8]
        page = await engine.read("j", limit=4, after=page[-1].cursor)
        assert [one.ordinal for one in page] == [9, 10]

    async def test_a_thousand_items_are_appended_in_one_call(self, engine: Engine) -> None:
        claimed = await start(engine, "j")
        assert await engine.append(claimed.lease, [item(claimed, ordinal) for ordinal in range(MAX_BATCH)])
        assert [one.ordinal for one in await engine.read("j", limit=MAX_BATCH)] == list(range(MAX_BATCH))
        assert len(await engine.read("j")) == 500

    async def test_a_resent_item_is_not_added_twice(self, engine: Engine) -> None:
        claimed = await start(engine, "j")
        first = [item(claimed, 1, b"1"), item(claimed, 2, b"2")]
        assert await engine.append(claimed.lease, first)
        assert await engine.append(claimed.lease, [item(claimed, 3, b"3")])
        assert await engine.append(claimed.lease, first)
        assert await engine.append(claimed.lease, [item(claimed, 2, b"2"), item(claimed, 4, b"4")])
        assert await bodies(engine) == [b"1", b"2", b"3", b"4"]

    async def test_only_the_latest_progress_is_kept(self, engine: Engine) -> None:
        claimed = await start(engine, "j")
        await engine.append(claimed.lease, [progress(claimed, 1, b"10%"), item(claimed, 2, b"log")])
        await engine.append(claimed.lease, [progress(claimed, 3, b"20%"), progress(claimed, 4, b"30%")])
        assert await bodies(engine) == [b"log", b"30%"]
        assert (await info(engine, "j")).progress == b"30%"

    async def test_a_resent_progress_does_not_replace_a_later_one(self, engine: Engine) -> None:
        claimed = await start(engine, "j")
        await engine.append(claimed.lease, [progress(claimed, 1, b"10%")])
        await engine.append(claimed.lease, [progress(claimed, 2, b"20%")])
        assert await engine.append(claimed.lease, [progress(claimed, 1, b"10%")])
        assert await bodies(engine) == [b"20%"]
        assert (await info(engine, "j")).progress == b"20%"

    async def test_reading_goes_on_behind_a_progress_that_was_replaced(self, engine: Engine) -> None:
        claimed = await start(engine, "j")
        await engine.append(claimed.lease, [item(claimed, 1, b"log"), progress(claimed, 2, b"10%")])
        cursor = (await engine.read("j"))[-1].cursor
        await engine.append(claimed.lease, [progress(claimed, 3, b"20%"), item(claimed, 4, b"more")])
        assert await bodies(engine, after=cursor) == [b"20%", b"more"]

    async def test_the_feed_of_the_next_attempt_goes_on_behind_the_last(self, engine: Engine) -> None:
        first = await start(engine, "j", max_attempts=2)
        await engine.append(first.lease, [item(first, 1, b"1a"), item(first, 50, b"1b"), progress(first, 60, b"90%")])
        cursor = (await engine.read("j"))[-1].cursor
        await end(engine, first, Outcome.retrying(0, BOOM))
        second = await take_one(engine)
        await engine.append(second.lease, [item(second, 1, b"2a"), progress(second, 2, b"10%")])
        assert await bodies(engine, after=cursor) == [b"2a", b"10%"]
        assert await bodies(engine) == [b"1a", b"1b", b"2a", b"10%"]
        assert (await info(engine, "j")).progress == b"10%"

    async def test_a_feed_is_kept_after_the_job_ended(self, engine: Engine) -> None:
        claimed = await start(engine, "j")
        await engine.append(claimed.lease, [item(claimed, 1, b"log"), progress(claimed, 2, b"100%")])
        await end(engine, claimed)
        assert await bodies(engine) == [b"log", b"100%"]
        assert (await info(engine, "j")).progress == b"100%"

    async def test_the_feeds_of_jobs_do_not_mix(self, engine: Engine) -> None:
        a = await start(engine, "a")
        b = await start(engine, "ab")
        await engine.append(a.lease, [item(a, 1, b"a")])
        await engine.append(b.lease, [item(b, 1, b"b"), progress(b, 2, b"b%")])
        assert await bodies(engine, "a") == [b"a"]
        assert await bodies(engine, "ab") == [b"b", b"b%"]
        assert (await info(engine, "a")).progress is None

    async def test_items_under_a_wrong_lease_are_refused(self, engine: Engine) -> None:
        claimed = await start(engine, "j")
        for wrong in (
            claimed.lease._replace(token=claimed.lease.token + 1),
            claimed.lease._replace(nonce=bytes(len(claimed.lease.nonce))),
            claimed.lease._replace(nonce=b""),
            Lease("unknown", claimed.lease.token, claimed.lease.nonce),
        ):
            assert await engine.append(wrong, [progress(claimed, 1, b"x"), item(claimed, 2, b"y")]) is False
        assert await engine.read("j") == []
        assert await engine.read("unknown") == []
        assert (await info(engine, "j")).progress is None

    @pytest.mark.parametrize("outcome", [Outcome.completed(b""), Outcome.retrying(0, BOOM), Outcome.released()])
    async def test_new_items_after_the_outcome_are_refused(self, engine: Engine, outcome: Outcome) -> None:
        claimed = await start(engine, "j")
        await end(engine, claimed, outcome)
        assert await engine.append(claimed.lease, [progress(claimed, 1, b"x"), item(claimed, 2, b"y")]) is False
        assert await engine.read("j") == []
        assert (await info(engine, "j")).progress is None

    async def test_items_after_the_rescue_are_refused(self, engine: Engine) -> None:
        old = await start(engine, "j")
        await pass_leases(engine)
        assert await engine.append(old.lease, [item(old, 1, b"old")]) is False
        new = await take_one(engine)
        assert await engine.append(new.lease, [item(new, 1, b"new")]) is True
        assert await engine.append(old.lease, [item(old, 2, b"old")]) is False
        assert await bodies(engine) == [b"new"]

    async def test_a_job_that_was_asked_to_stop_may_still_tell(self, engine: Engine) -> None:
        claimed = await start(engine, "j")
        await engine.cancel(["j"])
        assert await engine.append(claimed.lease, [item(claimed, 1, b"stopping")]) is True
        assert await bodies(engine) == [b"stopping"]

    async def test_items_do_not_count_as_transitions(self, engine: Engine) -> None:
        claimed = await start(engine, "j")
        before = await info(engine, "j")
        await engine.append(claimed.lease, [item(claimed, 1, b"log")])
        after = await info(engine, "j")
        assert (after.state, after.attempts, after.worker) == (before.state, before.attempts, before.worker)

    async def test_a_large_item_comes_back_whole(self, engine: Engine) -> None:
        claimed = await start(engine, "j")
        large = bytes(range(256)) * 4096
        assert await engine.append(claimed.lease, [item(claimed, 1, large, FeedKind.STREAM)])
        assert await bodies(engine) == [large]
