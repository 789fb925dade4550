"""Takes unreadable records out of everybody's way: written by another program, by a bug, or by a failing disk.

Nothing looks for them in the ordinary course of things, which would cost every job. Only when an operation has failed
in a way that such a record would explain, all records are looked at: what cannot be read is replaced, an open job ends
`failed (unreadable)` with what stood there kept in its attempts, and the counts are made anew.
"""

from __future__ import annotations

import json
import logging
import secrets
import sqlite3
from collections.abc import Callable, Iterator
from typing import Any, Final

from oncue.engines.sqlite import states
from oncue.engines.sqlite.clock import Clock, later
from oncue.engines.sqlite.moves import Moves, rows_by_seqs
from oncue.engines.sqlite.statements import load
from oncue.engines.sqlite.unit import Unit
from oncue.errors import OncueError
from oncue.job import Failure, Reason, UniqueWhile

__all__ = ["may_be_unreadable", "mend"]

logger = logging.getLogger("oncue.engine")

_sql = load("quarantine.sql")

_STATES: Final = states.FINAL | states.PENDING | {states.RUNNING}
_REASONS: Final = frozenset(reason.value for reason in Reason)
_WHILES: Final = frozenset(while_.value for while_ in UniqueWhile)
_EARLIEST: Final = -62_135_596_800_000
"""The first second of the year 1, before which there is no datetime."""
_LATEST: Final = later(0, float("inf"))
_TOP: Final = 2**62
"""No counter gets here by counting; adding to it would soon leave 64 bits."""
_SHOWN: Final = 4_000

Record = dict[str, Any]


def may_be_unreadable(error: Exception) -> bool:
    """Whether an error may come from a record that cannot be read, rather than from the call or the machine."""
    if isinstance(error, OncueError | UnicodeEncodeError):
        return False
    if isinstance(error, sqlite3.Error):
        # What SQLite refuses has a code; what Python's module cannot turn into a value has none.
        return not getattr(error, "sqlite_errorcode", 0) or isinstance(error, sqlite3.IntegrityError)
    return isinstance(error, TypeError | ValueError | ArithmeticError | LookupError | AttributeError)


def mend(conn: sqlite3.Connection, clock: Clock) -> bool:
    """Look at all records and mend what cannot be read; whether there was any. To be called outside a transaction."""
    unreadable = list(_unreadable(conn))
    conn.execute("BEGIN IMMEDIATE")
    try:
        unit = Unit(conn, clock.wall(), clock.steady())
        for record, odd in unreadable:
            _quarantine(unit, record, odd)
        unit.write_sums()
        if not _mend_other_tables(conn) and not unreadable:
            conn.execute("ROLLBACK")
            return False
        conn.execute(_sql.forget_counts)
        conn.execute(_sql.count_again)
        conn.execute("COMMIT")
    except BaseException:
        if conn.in_transaction:
            conn.execute("ROLLBACK")
        raise
    return True


def _text(value: object) -> bool:
    if not isinstance(value, bytearray):  # as which texts come here, so that blobs are told from them
        return False
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def _one_of(words: frozenset[str]) -> Callable[[object], bool]:
    return lambda value: isinstance(value, bytearray) and value.decode(errors="replace") in words


def _between(low: int, high: int) -> Callable[[object], bool]:
    return lambda value: isinstance(value, int) and low <= value <= high


def _maybe(test: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: value is None or test(value)


def _blob(value: object) -> bool:
    return isinstance(value, bytes)


def _meta(value: object) -> bool:
    if not isinstance(value, bytearray) or not _text(value):
        return False
    try:
        meta = json.loads(value)
    except ValueError:
        return False
    return isinstance(meta, dict) and all(isinstance(one, str) for one in meta.values())


_any = _between(-(2**63), 2**63 - 1)
_moment = _between(_EARLIEST, _LATEST)
_count = _between(0, _TOP)
_flag = _between(0, 1)

# What each column may be, and what stands there if it is not.
_COLUMNS: Final[dict[str, tuple[Callable[[object], bool], Any]]] = {
    "id": (_text, None),
    "task": (_text, "unreadable"),
    "queue": (_text, "unreadable"),
    "state": (_one_of(_STATES), states.QUEUED),
    "reason": (_maybe(_one_of(_REASONS)), None),
    "priority": (_any, 0),
    "created_at": (_moment, 0),
    "due_at": (_moment, 0),
    "expires_at": (_maybe(_moment), None),
    "started_at": (_maybe(_moment), None),
    "finished_at": (_maybe(_moment), None),
    "keep_until": (_maybe(_between(0, 2**63 - 1)), None),
    "keep_ms": (_count, 86_400_000),
    "timeout_ms": (_maybe(_count), None),
    "attempts": (_count, 0),
    "crashes": (_count, 0),
    "max_attempts": (_any, 1),
    "max_crashes": (_any, 1),
    "token": (_count, 0),
    "nonce": (_maybe(_blob), None),
    "owner": (_maybe(_text), None),
    "lease_until": (_maybe(_any), None),
    "cancel_requested": (_flag, 0),
    "deps_open": (_count, 0),
    "after_any": (_flag, 0),
    "has_dependents": (_flag, 1),
    "has_parents": (_flag, 1),
    "unique_key": (_maybe(_text), None),
    "unique_while": (_maybe(_one_of(_WHILES)), None),
    "request": (_maybe(_blob), None),
    "meta": (_maybe(_meta), None),
    "error": (_maybe(_text), None),
    "progress": (_maybe(_blob), None),
    "revision": (_between(1, _TOP), 1),
}


def _unreadable(conn: sqlite3.Connection) -> Iterator[tuple[Record, list[str]]]:
    """Yield the records that cannot be read, with the names of the columns to blame."""
    conn.text_factory = bytearray
    try:
        for seq, *values in conn.execute(_sql.records):
            odd = [
                column for (column, (test, _)), value in zip(_COLUMNS.items(), values, strict=True) if not test(value)
            ]
            record: Record = dict(zip(_COLUMNS, values, strict=True)) | {"seq": seq}
            if not odd and record["state"] == b"running" and None in (record["owner"], record["lease_until"]):
                odd = ["owner", "lease_until"]  # readable, but nobody would ever take it back
            if odd:
                yield record, odd
    finally:
        conn.text_factory = str


def _quarantine(unit: Unit, record: Record, odd: list[str]) -> None:
    """Replace what cannot be read, and end the job if it was open."""
    seq, now = record["seq"], unit.now
    found = {column: record[column] for column in odd}
    values: Record = {
        column: value.decode(errors="replace") if isinstance(value, bytearray) else value
        for column, value in record.items()
    }
    values |= {column: _COLUMNS[column][1] for column in odd}
    if "id" in odd:
        values["id"] = f"unreadable-{seq}-{secrets.token_hex(4)}"
    for column in {"created_at", "due_at", "token"} & set(odd):
        values[column] = now
    if values["unique_key"] is None or values["unique_while"] is None:
        values |= {"unique_key": None, "unique_while": None}
        unit.conn.execute(_sql.free_uniques, (seq,))
    is_open = values["state"] not in states.FINAL
    if not is_open:
        values |= {"finished_at": values["finished_at"] or now, "owner": None, "lease_until": None, "deps_open": 0}
        values["keep_until"] = values["keep_until"] or now + values["keep_ms"]
        values["reason"] = values["reason"] or Reason.UNREADABLE.value
    unit.conn.execute(_sql.mend, values)
    words = ", ".join(odd)
    message = f"its record could not be read: {words}"
    if is_open:
        moves = Moves(unit)
        moves.end(
            rows_by_seqs(unit, [seq])[0], states.FAILED, Reason.UNREADABLE, failure=Failure("Unreadable", message)
        )
        moves.flush()
    raw = "\n".join(f"{column} = {_shown(value)}" for column, value in found.items())
    attempt = (seq, values["token"], values["attempts"], values["owner"] or "", now, now, states.FAILED)
    unit.conn.execute(_sql.keep_what_was_read, (*attempt, "Unreadable", message, raw))
    logger.error(
        "the record of job %r could not be read (%s); what stood there is in its attempts", values["id"], words
    )


def _shown(value: object) -> str:
    text = repr(bytes(value)) if isinstance(value, bytearray) else repr(value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"


def _mend_other_tables(conn: sqlite3.Connection) -> bool:
    before = conn.total_changes
    limits = {"earliest": _EARLIEST, "latest": _LATEST}
    for statement in (_sql.odd_attempts, _sql.odd_feed, _sql.odd_metrics, _sql.odd_workers):
        conn.execute(statement, limits)
    for statement in (_sql.odd_payloads, _sql.odd_results, _sql.odd_queues, _sql.odd_meta, _sql.odd_counts):
        conn.execute(statement)
    for look, forget in (
        (_sql.names_of_counts, _sql.forget_counts),
        (_sql.names_of_metrics, _sql.forget_metrics),
        (_sql.words_of_workers, _sql.forget_workers),
        (_sql.names_of_queues, _sql.forget_queues),
    ):
        try:
            for _ in conn.execute(look):
                pass
        except sqlite3.OperationalError:  # not UTF-8
            conn.execute(forget)
    return conn.total_changes > before
