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
SELECT due_at FROM jobs WHERE state = 'queued' AND queue = ? ORDER BY priority DESC, due_at, seq LIMIT 1

-- name: workers
SELECT id, info, seen_at, expires FROM workers WHERE seen_at >= ? ORDER BY id

-- name: metrics
SELECT minute, queue, task, kind, bucket, n FROM metrics WHERE minute >= ? ORDER BY minute, queue, task

-- name: position
SELECT seq FROM jobs WHERE id = ?

-- Listing is one query a combination of filters, so that each has its index.

-- name: list_all
SELECT
    seq, {columns}
FROM jobs WHERE seq < :before ORDER BY seq DESC LIMIT :limit

-- name: tasks_of
SELECT task FROM counts WHERE queue = ? GROUP BY task HAVING sum(n) > 0

-- name: list_by_task
SELECT
    seq, {columns}
FROM jobs WHERE task = :task AND (:queue IS NULL OR queue = :queue) AND seq < :before ORDER BY seq DESC LIMIT :limit

-- name: list_by_state
SELECT
    seq, {columns}
FROM jobs
WHERE state = :state AND (:task IS NULL OR task = :task) AND (:queue IS NULL OR queue = :queue) AND seq < :before
ORDER BY seq DESC LIMIT :limit
