-- name: request_cancel
-- T15.
UPDATE jobs SET cancel_requested = 1, revision = revision + 1 WHERE seq = ?

-- name: run_again
-- T16: a new budget, the same id; the token goes on.
UPDATE jobs SET
    state = 'queued', reason = NULL, error = NULL, attempts = 0, crashes = 0, due_at = ?, expires_at = NULL,
    finished_at = NULL, keep_until = NULL, cancel_requested = 0, progress = NULL, deps_open = 0,
    revision = revision + 1
WHERE seq = ?

-- name: drop_result
DELETE FROM results WHERE seq = ?

-- name: unique_holder
SELECT holder, until FROM uniques WHERE key = ?

-- name: take_unique
INSERT OR REPLACE INTO uniques (key, seq, holder, until) VALUES (?, ?, ?, NULL)

-- name: set_queue
INSERT OR REPLACE INTO queues (name, paused) VALUES (?, ?)
