-- Schema version 1. Times are integer milliseconds since 1970 (wall clock), except lease_until and meta's
-- rescue times, which count since boot, so that a stepped wall clock moves no lease.

-- One row a job, small, so that lists and moves touch few pages: bodies live in tables of their own.
-- Bound: open jobs, plus ended ones until keep_until.
CREATE TABLE jobs (
    seq              INTEGER PRIMARY KEY,   -- order of acceptance
    id               TEXT    NOT NULL UNIQUE,
    task             TEXT    NOT NULL,
    queue            TEXT    NOT NULL,
    state            TEXT    NOT NULL,
    reason           TEXT,
    priority         INTEGER NOT NULL,
    created_at       INTEGER NOT NULL,
    due_at           INTEGER NOT NULL,      -- a released job keeps it, and so returns to the front of its line
    expires_at       INTEGER,
    started_at       INTEGER,               -- of the latest attempt
    finished_at      INTEGER,
    keep_until       INTEGER,               -- set when it ends
    keep_ms          INTEGER NOT NULL,
    timeout_ms       INTEGER,
    attempts         INTEGER NOT NULL DEFAULT 0,
    crashes          INTEGER NOT NULL DEFAULT 0,
    max_attempts     INTEGER NOT NULL,
    max_crashes      INTEGER NOT NULL,
    token            INTEGER NOT NULL DEFAULT 0,  -- never falls; with nonce the fence of the current attempt
    nonce            BLOB,                        -- NULL once a rescue has taken the attempt away
    owner            TEXT,
    lease_until      INTEGER,
    cancel_requested INTEGER NOT NULL DEFAULT 0,
    deps_open        INTEGER NOT NULL DEFAULT 0,
    after_any        INTEGER NOT NULL DEFAULT 0,
    has_dependents   INTEGER NOT NULL DEFAULT 0,
    has_parents      INTEGER NOT NULL DEFAULT 0,
    unique_key       TEXT,
    unique_while     TEXT,
    request          BLOB,                  -- recognises a resent enqueue with a caller-chosen id
    meta             TEXT,                  -- JSON object of strings
    error            TEXT,
    progress         BLOB,
    revision         INTEGER NOT NULL DEFAULT 1
);

-- Each state's way in: partial, so that a job is in the index of its own state only.
CREATE INDEX jobs_ready  ON jobs (queue, priority DESC, due_at, seq) WHERE state = 'queued';
CREATE INDEX jobs_due    ON jobs (due_at)      WHERE state IN ('scheduled', 'retrying');
CREATE INDEX jobs_keep   ON jobs (keep_until)  WHERE keep_until IS NOT NULL;
CREATE INDEX jobs_expiry ON jobs (expires_at)
    WHERE expires_at IS NOT NULL AND state IN ('scheduled', 'queued', 'retrying') AND token = 0;
-- Listing: `counts` says which groups there are, this index has each of them in order, and any filter is some groups.
-- Running jobs are found here too: they are few, and an index of leases would be written three times a job to be read
-- once in five seconds.
CREATE INDEX jobs_groups ON jobs (state, queue, task, seq);

-- Written once, read at claim. Bound: its job.
CREATE TABLE payloads (seq INTEGER PRIMARY KEY, body BLOB NOT NULL);
CREATE TABLE results  (seq INTEGER PRIMARY KEY, body BLOB NOT NULL);

-- Attempts that ended in any way but success. Bound: 100 a job.
CREATE TABLE attempts (
    job         INTEGER NOT NULL,
    token       INTEGER NOT NULL,
    number      INTEGER NOT NULL,
    worker      TEXT    NOT NULL,
    started_at  INTEGER NOT NULL,
    finished_at INTEGER NOT NULL,
    outcome     TEXT    NOT NULL,
    type        TEXT,
    message     TEXT,
    traceback   TEXT
);
CREATE UNIQUE INDEX attempts_by_job ON attempts (job, token);

-- Progress, log lines and streamed output. Bound: 10,000 items an attempt, one progress a job.
CREATE TABLE feed (
    job     INTEGER NOT NULL,
    token   INTEGER NOT NULL,
    ordinal INTEGER NOT NULL,
    at      INTEGER NOT NULL,
    kind    TEXT    NOT NULL,
    body    BLOB    NOT NULL
);
CREATE UNIQUE INDEX feed_by_job   ON feed (job, token, ordinal);
CREATE INDEX        feed_progress ON feed (job, token, ordinal) WHERE kind = 'progress';

-- Who holds which unique key. Bound: its job, or `until`.
CREATE TABLE uniques (
    key    TEXT PRIMARY KEY,
    seq    INTEGER NOT NULL,
    holder TEXT    NOT NULL,
    until  INTEGER               -- only for while='ttl'
) WITHOUT ROWID;
CREATE INDEX uniques_by_seq   ON uniques (seq);
CREATE INDEX uniques_by_until ON uniques (until) WHERE until IS NOT NULL;

-- A row from when `child` is accepted until it has ended: as long, `parent` and its result are kept.
-- Bound: open jobs.
CREATE TABLE deps (
    parent  INTEGER NOT NULL,
    child   INTEGER NOT NULL,
    is_open INTEGER NOT NULL,               -- until the parent has ended
    PRIMARY KEY (parent, child)
) WITHOUT ROWID;
CREATE INDEX deps_by_child ON deps (child);

-- Jobs by state, kept in the same transaction as the jobs. Bound: queues x tasks x states.
CREATE TABLE counts (
    queue TEXT    NOT NULL,
    task  TEXT    NOT NULL,
    state TEXT    NOT NULL,
    n     INTEGER NOT NULL,
    PRIMARY KEY (queue, task, state)
) WITHOUT ROWID;

-- What happened, minute by minute. `bucket` is 0 for a counter, else the lower bound in milliseconds of a
-- histogram's bucket. Bound: a day.
CREATE TABLE metrics (
    minute INTEGER NOT NULL,
    queue  TEXT    NOT NULL,
    task   TEXT    NOT NULL,
    kind   TEXT    NOT NULL,
    bucket INTEGER NOT NULL,
    n      INTEGER NOT NULL,
    PRIMARY KEY (minute, queue, task, kind, bucket)
) WITHOUT ROWID;

-- Queues that were paused or resumed. Bound: names in use.
CREATE TABLE queues (name TEXT PRIMARY KEY, paused INTEGER NOT NULL) WITHOUT ROWID;

-- What each worker last said of itself. Bound: an hour after the last word.
CREATE TABLE workers (
    id      TEXT PRIMARY KEY,
    info    TEXT    NOT NULL,    -- JSON
    seen_at INTEGER NOT NULL,
    expires INTEGER NOT NULL     -- since boot
) WITHOUT ROWID;

-- boot_id; last_rescue and no_rescue_before, since boot. Bound: these three.
CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
