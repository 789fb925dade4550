-- fragment: columns
jobs.id, task, queue, state, reason, priority, created_at, due_at, expires_at, started_at, finished_at,
attempts, crashes, max_attempts, max_crashes, timeout_ms, owner, cancel_requested, deps_open, unique_key, error,
progress, meta, revision

-- name: get
SELECT
    {columns}
FROM json_each(?) AS wanted JOIN jobs ON jobs.id = wanted.value

-- name: get_with_bodies
SELECT
    {columns}, payloads.body, results.body
FROM json_each(?) AS wanted
JOIN jobs ON jobs.id = wanted.value
LEFT JOIN payloads USING (seq)
LEFT JOIN results USING (seq)

-- name: attempts
SELECT token, number, worker, started_at, finished_at, outcome, type, message, traceback FROM attempts
WHERE job = (SELECT seq FROM jobs WHERE id = ?) ORDER BY token

-- name: queue_counts
SELECT queue, state, sum(n) FROM counts GROUP BY queue, state HAVING sum(n) > 0

-- name: queue_flags
SELECT name, paused FROM queues

-- name: head
SELECT due_at FROM jobs INDEXED BY jobs_ready WHERE state = 'queued' AND queue = ? ORDER BY priority DESC, due_at, seq LIMIT 1

-- name: workers
SELECT id, info, seen_at, expires FROM workers WHERE seen_at >= ? ORDER BY id

-- name: metrics
SELECT minute, queue, task, kind, bucket, n FROM metrics WHERE minute >= ? ORDER BY minute, queue, task

-- name: newest
SELECT seq FROM jobs WHERE seq < ? ORDER BY seq DESC LIMIT ?

-- name: groups
-- Which groups a filter names.
SELECT state, queue, task FROM counts
WHERE n > 0 AND (:queue IS NULL OR queue = :queue) AND (:task IS NULL OR task = :task)

-- name: newest_of_group
SELECT seq FROM jobs WHERE state = ? AND queue = ? AND task = ? AND seq < ? ORDER BY seq DESC LIMIT ?

-- name: page
SELECT
    {columns}
FROM json_each(?) AS wanted JOIN jobs ON jobs.seq = wanted.value
ORDER BY wanted.key
