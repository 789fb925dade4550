-- name: get_meta
SELECT value FROM meta WHERE key = ?

-- name: set_meta
INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)

-- name: save_worker
INSERT OR REPLACE INTO workers (id, info, seen_at, expires) VALUES (?, ?, ?, ?)

-- name: forget_worker
DELETE FROM workers WHERE id = ?

-- name: renew
UPDATE jobs SET lease_until = ? WHERE seq IN (SELECT value FROM json_each(?))

-- name: expired_leases
SELECT seq FROM jobs INDEXED BY jobs_groups WHERE state = 'running' AND lease_until < ? ORDER BY lease_until LIMIT ?

-- name: held_by
SELECT seq FROM jobs INDEXED BY jobs_groups WHERE state = 'running' AND owner IN (SELECT value FROM json_each(?)) LIMIT ?

-- name: not_started_in_time
SELECT seq FROM jobs INDEXED BY jobs_expiry
WHERE expires_at IS NOT NULL AND state IN ('scheduled', 'queued', 'retrying') AND token = 0 AND expires_at <= ?
ORDER BY expires_at LIMIT ?

-- name: void_leases
-- After a boot no worker of before it lives: all leases have expired.
UPDATE jobs SET lease_until = 0 WHERE state = 'running'

-- name: past_keep
SELECT seq FROM jobs WHERE keep_until IS NOT NULL AND keep_until <= ?
AND NOT (has_dependents AND EXISTS (SELECT 1 FROM deps WHERE parent = jobs.seq))
ORDER BY keep_until LIMIT ?

-- name: finished_count
SELECT coalesce(sum(n), 0) FROM counts WHERE state IN ('completed', 'failed', 'cancelled')

-- name: first_ended
SELECT seq FROM jobs WHERE keep_until IS NOT NULL
AND NOT (has_dependents AND EXISTS (SELECT 1 FROM deps WHERE parent = jobs.seq))
ORDER BY keep_until LIMIT ?

-- name: old_metrics
DELETE FROM metrics WHERE minute < ?

-- name: old_uniques
DELETE FROM uniques WHERE until IS NOT NULL AND until <= ?

-- name: old_workers
DELETE FROM workers WHERE seen_at < ?

-- name: empty_counts
DELETE FROM counts WHERE n = 0

-- name: drop_jobs
DELETE FROM jobs WHERE seq IN (SELECT value FROM json_each(?))

-- name: drop_payloads
DELETE FROM payloads WHERE seq IN (SELECT value FROM json_each(?))

-- name: drop_results
DELETE FROM results WHERE seq IN (SELECT value FROM json_each(?))

-- name: drop_attempts
DELETE FROM attempts WHERE job IN (SELECT value FROM json_each(?))

-- name: drop_feed
DELETE FROM feed WHERE job IN (SELECT value FROM json_each(?))

-- name: drop_uniques
DELETE FROM uniques WHERE until IS NULL AND seq IN (SELECT value FROM json_each(?))

-- name: drop_links
DELETE FROM deps WHERE parent IN (SELECT value FROM json_each(?))

-- name: add_counts
INSERT INTO counts (queue, task, state, n) VALUES (?, ?, ?, ?)
ON CONFLICT (queue, task, state) DO UPDATE SET n = n + excluded.n

-- name: add_metrics
INSERT INTO metrics (minute, queue, task, kind, bucket, n) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (minute, queue, task, kind, bucket) DO UPDATE SET n = n + excluded.n
