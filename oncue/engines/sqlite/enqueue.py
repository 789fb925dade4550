"""The operation that accepts jobs (T1)."""

from __future__ import annotations

import json
from collections.abc import Sequence

from oncue.engine import Enqueued
from oncue.engines.sqlite import states
from oncue.engines.sqlite.clock import later, to_ms
from oncue.engines.sqlite.moves import Moves, rows_by_seqs
from oncue.engines.sqlite.statements import load
from oncue.engines.sqlite.unit import Unit
from oncue.job import NewJob, Reason, UniqueWhile

__all__ = ["enqueue"]

_sql = load("enqueue.sql")


def enqueue(unit: Unit, jobs: Sequence[NewJob]) -> list[Enqueued]:
    """Accept jobs; see `Engine.enqueue`."""
    return _Acceptance(unit, jobs).answers()


class _Acceptance:
    """One batch on its way in: rows collect and are inserted together, unless one must be looked up again."""

    def __init__(self, unit: Unit, jobs: Sequence[NewJob]) -> None:
        self._unit = unit
        self._jobs = jobs
        self._seq: int = unit.conn.execute(_sql.next_seq).fetchone()[0]
        self._rows: list[tuple[object, ...]] = []
        self._payloads: list[tuple[int, bytes]] = []
        found = unit.conn.execute(_sql.known, (json.dumps([job.id for job in jobs]),))
        self._known: dict[str, tuple[str, bytes | None]] = {id: (state, request) for id, state, request in found}

    def answers(self) -> list[Enqueued]:
        answers = [self._accept(job) for job in self._jobs]
        self._flush()
        return answers

    def _accept(self, job: NewJob) -> Enqueued:
        known = self._known.get(job.id)
        if known is not None:
            state, request = known
            if request == job.request:  # the same call again: its reply was lost
                return Enqueued(job.id, True, states.STATE[state])
            return Enqueued(job.id, False, states.STATE[state], "id")
        parents, doomed = self._parents(job) if job.after else ([], False)
        if job.unique is not None and not doomed:
            if (conflict := self._take_unique(job)) is not None:
                return conflict
            if job.after:  # the job that it took the place of may be one that it waits for
                parents, doomed = self._parents(job)
                if doomed:
                    self._unit.conn.execute(_sql.free_unique, (job.unique.key, self._seq))
        return self._insert(job, parents, doomed)

    def _insert(self, job: NewJob, parents: list[tuple[int, bool]], doomed: bool) -> Enqueued:
        unit, seq, now = self._unit, self._seq, self._unit.now
        self._seq += 1
        due_at = now if not job.delay else later(now, job.delay)
        if job.run_at is not None:
            due_at = to_ms(job.run_at)
        state, reason = (states.SCHEDULED if due_at > now else states.QUEUED), None
        waits_for = sum(is_open for _, is_open in parents)
        if doomed:
            state, reason = states.CANCELLED, Reason.DEPENDENCY.value
        elif waits_for:
            state = states.WAITING
        unit.change(_sql.insert_dep, [(parent, seq, is_open) for parent, is_open in parents])
        unit.change(_sql.mark_parent, [(parent,) for parent, _ in parents])
        keep_ms = round(job.keep * 1000)
        self._rows.append(
            (
                seq,
                job.id,
                job.task,
                job.queue,
                state,
                reason,
                job.priority,
                now,
                due_at,
                None if job.expires_in is None else later(due_at, job.expires_in),
                now if reason else None,
                now + keep_ms if reason else None,
                keep_ms,
                None if job.timeout is None else round(job.timeout * 1000),
                job.max_attempts,
                job.max_crashes,
                waits_for,
                bool(parents),
                job.after_any,
                None if job.unique is None else job.unique.key,
                None if job.unique is None else UniqueWhile(job.unique.while_).value,
                job.request,
                json.dumps(dict(job.meta)) if job.meta else None,
            )
        )
        self._payloads.append((seq, job.payload))
        self._known[job.id] = (state, job.request)
        unit.count(job.queue, job.task, state, 1)
        unit.measure(job.queue, job.task, "enqueued")
        unit.hint_queue(job.queue)
        unit.moved.append(job.id)
        return Enqueued(job.id, True, states.STATE[state])

    def _parents(self, job: NewJob) -> tuple[list[tuple[int, bool]], bool]:
        """Return the jobs to wait for, each with whether it is still open, and whether the job can never run."""
        self._flush()  # a parent may be in this very batch
        unit = self._unit
        wanted = set(job.after)
        parents = unit.conn.execute(_sql.parents, (json.dumps(sorted(wanted)),)).fetchall()
        bad = len(parents) < len(wanted) or any(state in (states.FAILED, states.CANCELLED) for _, _, state in parents)
        if bad and not job.after_any:
            return [], True
        return [(parent, state not in states.FINAL) for _, parent, state in parents], False

    def _take_unique(self, job: NewJob) -> Enqueued | None:
        """Take the job's unique key, or answer with its holder."""
        self._flush()  # the holder may be in this very batch
        unit, unique = self._unit, job.unique
        assert unique is not None
        found = unit.conn.execute(_sql.unique_holder, (unique.key,)).fetchone()
        if found is not None:
            holder_seq, holder, until, state, token = found
            lapsed = until is not None and until <= unit.now
            if not lapsed:
                never_started = token == 0 and state in states.PENDING
                if not (unique.on_conflict == "replace" and never_started):
                    # A holder by time may have been deleted: it still stands, as completed long ago.
                    return Enqueued(holder, False, states.STATE[state or states.COMPLETED], "unique")
                moves = Moves(unit)
                [row] = rows_by_seqs(unit, [holder_seq])
                moves.end(row, states.CANCELLED, Reason.USER)
                moves.flush()
        until = None
        if unique.while_ == UniqueWhile.TTL:
            until = later(unit.now, unique.ttl or 0)
        unit.conn.execute(_sql.take_unique, (unique.key, self._seq, job.id, until))
        return None

    def _flush(self) -> None:
        unit = self._unit
        unit.insert(_sql.insert_job, self._rows)
        unit.insert(_sql.insert_payload, self._payloads)
        self._rows, self._payloads = [], []
