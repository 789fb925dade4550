-- name: first_due
-- A partial index can be used where its own condition stands word for word, and is where it is named: without that
-- SQLite would rather look through all of the state.
SELECT due_at FROM jobs INDEXED BY jobs_due WHERE state IN ('scheduled', 'retrying') ORDER BY due_at LIMIT 1

-- name: due
-- At most 500 a call: a million due at once must not hold the lock.
SELECT seq, state, queue, task, id FROM jobs INDEXED BY jobs_due WHERE state IN ('scheduled', 'retrying') AND due_at <= ?
ORDER BY due_at LIMIT 500

-- name: promote
-- T2.
UPDATE jobs SET state = 'queued', reason = NULL, revision = revision + 1
WHERE seq IN (SELECT value FROM json_each(?))

-- name: paused
SELECT name FROM queues WHERE paused = 1

-- name: head
-- The head of one queue, read from its index alone.
SELECT priority, due_at, seq FROM jobs INDEXED BY jobs_ready WHERE state = 'queued' AND queue = ?
ORDER BY priority DESC, due_at, seq LIMIT ?

-- name: rows
SELECT
    jobs.seq, jobs.id, task, queue, attempts, crashes, max_attempts, max_crashes, priority, timeout_ms, keep_ms,
    created_at, due_at, expires_at, token, unique_key, unique_while, meta, payloads.body
FROM json_each(?) AS wanted
JOIN jobs ON jobs.seq = wanted.value
LEFT JOIN payloads ON payloads.seq = jobs.seq
ORDER BY wanted.key

-- name: start
-- T5.
UPDATE jobs SET
    state = 'running', reason = NULL, attempts = attempts + 1, token = max(token + 1, :now), nonce = :nonce,
    owner = :owner, lease_until = :lease_until, started_at = :now, progress = NULL, revision = revision + 1
WHERE seq IN (SELECT value FROM json_each(:seqs))

-- name: release_pending_unique
DELETE FROM uniques WHERE key = ? AND seq = ?

-- name: owned
SELECT seq, id, token, nonce, started_at FROM jobs INDEXED BY jobs_groups WHERE state = 'running' AND owner = ?

-- name: renew
UPDATE jobs SET lease_until = ? WHERE seq IN (SELECT value FROM json_each(?))
