-- fragment: columns
seq, jobs.id, task, queue, state, attempts, crashes, max_crashes, token, nonce, owner, due_at, started_at,
cancel_requested, has_dependents, has_parents, unique_key, unique_while

-- name: by_ids
SELECT
    {columns}
FROM json_each(?) AS wanted JOIN jobs ON jobs.id = wanted.value

-- name: by_seqs
SELECT
    {columns}
FROM json_each(?) AS wanted JOIN jobs ON jobs.seq = wanted.value
ORDER BY wanted.key

-- name: end
-- T4, T6, T7, T9, T10, T11, T14: a job reaches its final state.
UPDATE jobs SET
    state = :state, reason = :reason, error = coalesce(:error, error), finished_at = :now, keep_until = :now + keep_ms,
    crashes = crashes + :crash, nonce = CASE WHEN :crash THEN NULL ELSE nonce END,
    owner = NULL, lease_until = NULL, deps_open = 0, revision = revision + 1
WHERE seq IN (SELECT value FROM json_each(:seqs))

-- name: requeue
-- T8, T11, T12: a running job goes back in line.
UPDATE jobs SET
    state = ?, reason = ?, error = coalesce(?, error), due_at = ?, attempts = attempts - ?, crashes = crashes + ?,
    nonce = CASE WHEN ? THEN NULL ELSE nonce END,
    owner = NULL, lease_until = NULL, progress = NULL, revision = revision + 1
WHERE seq = ?

-- name: store_result
INSERT OR REPLACE INTO results (seq, body) VALUES {rows}

-- name: record_attempt
INSERT OR IGNORE INTO attempts
    (job, token, number, worker, started_at, finished_at, outcome, type, message, traceback)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)

-- name: trim_attempts
DELETE FROM attempts WHERE job = ?1 AND token <= (
    SELECT token FROM attempts WHERE job = ?1 ORDER BY token DESC LIMIT 1 OFFSET 100
)

-- name: trim_feed
-- What an attempt reported is kept as long as the attempt.
DELETE FROM feed WHERE job = ? AND token < (SELECT min(token) FROM attempts WHERE job = ?)

-- name: free_unique
DELETE FROM uniques WHERE key = ? AND seq = ? AND until IS NULL

-- name: children
SELECT child, after_any FROM deps JOIN jobs ON jobs.seq = deps.child
WHERE parent = ? AND is_open AND state = 'waiting' ORDER BY child

-- name: parent_ended
UPDATE deps SET is_open = 0 WHERE parent = ?

-- name: forget_child
DELETE FROM deps WHERE child = ?

-- name: dependency_ended
UPDATE jobs SET deps_open = deps_open - 1 WHERE seq = ? RETURNING deps_open, due_at, queue, task, id

-- name: ready
-- T3.
UPDATE jobs SET state = ?, revision = revision + 1 WHERE seq = ?
