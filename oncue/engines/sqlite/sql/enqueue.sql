-- name: next_seq
-- Not the position of a deleted job that still holds a key for a time.
SELECT max(coalesce((SELECT max(seq) FROM jobs), 0), coalesce((SELECT max(seq) FROM uniques), 0)) + 1

-- name: known
-- Which of these ids are taken.
SELECT id, state, request FROM jobs WHERE id IN (SELECT value FROM json_each(?))

-- name: insert_job
INSERT INTO jobs (
    seq, id, task, queue, state, reason, priority, created_at, due_at, expires_at, finished_at, keep_until, keep_ms,
    timeout_ms, max_attempts, max_crashes, deps_open, has_parents, after_any, unique_key, unique_while, request, meta
) VALUES {rows}

-- name: insert_payload
INSERT INTO payloads (seq, body) VALUES {rows}

-- name: unique_holder
-- A key held for a time outlives its job, whose position may be another job's by then.
SELECT u.seq, u.holder, u.until, j.state, j.token FROM uniques u LEFT JOIN jobs j ON j.seq = u.seq AND j.id = u.holder
WHERE u.key = ?

-- name: take_unique
INSERT OR REPLACE INTO uniques (key, seq, holder, until) VALUES (?, ?, ?, ?)

-- name: free_unique
DELETE FROM uniques WHERE key = ? AND seq = ?

-- name: parents
SELECT id, seq, state FROM jobs WHERE id IN (SELECT value FROM json_each(?))

-- name: insert_dep
INSERT OR IGNORE INTO deps (parent, child, is_open) VALUES (?, ?, ?)

-- name: mark_parent
UPDATE jobs SET has_dependents = 1 WHERE seq = ?
