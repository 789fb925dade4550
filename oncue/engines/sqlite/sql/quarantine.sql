-- name: records
SELECT
    seq, id, task, queue, state, reason, priority, created_at, due_at, expires_at, started_at, finished_at, keep_until,
    keep_ms, timeout_ms, attempts, crashes, max_attempts, max_crashes, token, nonce, owner, lease_until,
    cancel_requested, deps_open, after_any, has_dependents, has_parents, unique_key, unique_while, request, meta, error,
    progress, revision
FROM jobs

-- name: mend
UPDATE jobs SET
    id = :id, task = :task, queue = :queue, state = :state, reason = :reason, priority = :priority,
    created_at = :created_at, due_at = :due_at, expires_at = :expires_at, started_at = :started_at,
    finished_at = :finished_at, keep_until = :keep_until, keep_ms = :keep_ms, timeout_ms = :timeout_ms,
    attempts = :attempts, crashes = :crashes, max_attempts = :max_attempts, max_crashes = :max_crashes, token = :token,
    nonce = :nonce, owner = :owner, lease_until = :lease_until, cancel_requested = :cancel_requested,
    deps_open = :deps_open, after_any = :after_any, has_dependents = :has_dependents, has_parents = :has_parents,
    unique_key = :unique_key, unique_while = :unique_while, request = :request, meta = :meta, error = :error,
    progress = :progress, revision = :revision
WHERE seq = :seq

-- name: keep_what_was_read
INSERT OR REPLACE INTO attempts
    (job, token, number, worker, started_at, finished_at, outcome, type, message, traceback)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)

-- name: free_uniques
DELETE FROM uniques WHERE seq = ? AND until IS NULL

-- What stands in other tables is of less worth than that everything else can be read. An unreadable text is found by
-- the module, which is given the bytes.

-- name: odd_payloads
UPDATE payloads SET body = CAST(body AS BLOB) WHERE typeof(body) <> 'blob'

-- name: odd_results
UPDATE results SET body = CAST(body AS BLOB) WHERE typeof(body) <> 'blob'

-- name: odd_attempts
DELETE FROM attempts WHERE typeof(token) <> 'integer' OR typeof(number) <> 'integer' OR typeof(worker) <> 'text'
OR typeof(outcome) <> 'text' OR typeof(type) NOT IN ('text', 'null') OR typeof(message) NOT IN ('text', 'null')
OR typeof(traceback) NOT IN ('text', 'null') OR typeof(started_at) <> 'integer' OR typeof(finished_at) <> 'integer'
OR started_at NOT BETWEEN :earliest AND :latest OR finished_at NOT BETWEEN :earliest AND :latest

-- name: odd_feed
DELETE FROM feed WHERE typeof(token) <> 'integer' OR typeof(ordinal) <> 'integer' OR typeof(body) <> 'blob'
OR kind NOT IN ('progress', 'log', 'stream') OR typeof(at) <> 'integer' OR at NOT BETWEEN :earliest AND :latest

-- name: odd_metrics
DELETE FROM metrics WHERE typeof(minute) <> 'integer' OR minute NOT BETWEEN :earliest AND :latest
OR typeof(queue) <> 'text' OR typeof(task) <> 'text' OR typeof(kind) <> 'text' OR typeof(bucket) <> 'integer'
OR typeof(n) <> 'integer'

-- name: odd_queues
DELETE FROM queues WHERE typeof(name) <> 'text' OR paused NOT IN (0, 1)

-- name: odd_meta
DELETE FROM meta WHERE key IN ('last_rescue', 'no_rescue_before') AND typeof(value) <> 'integer'

-- name: odd_counts
DELETE FROM counts WHERE typeof(queue) <> 'text' OR typeof(task) <> 'text' OR typeof(n) <> 'integer' OR state NOT IN (
    'scheduled', 'waiting', 'queued', 'running', 'retrying', 'completed', 'failed', 'cancelled'
)

-- name: odd_workers
DELETE FROM workers WHERE typeof(id) <> 'text' OR typeof(seen_at) <> 'integer' OR typeof(expires) <> 'integer'
OR seen_at NOT BETWEEN :earliest AND :latest OR CASE
    WHEN typeof(info) <> 'text' OR NOT json_valid(info) THEN 1
    ELSE json_type(info) <> 'object' OR json_type(info, '$.queues') IS NOT 'array'
        OR json_type(info, '$.tasks') IS NOT 'array' OR json_type(info, '$.started_at') NOT IN ('text', 'null')
END

-- name: names_of_counts
SELECT queue, task FROM counts

-- name: names_of_metrics
SELECT queue, task FROM metrics

-- name: words_of_workers
SELECT id, info FROM workers

-- name: names_of_queues
SELECT name FROM queues

-- name: forget_counts
DELETE FROM counts

-- name: forget_metrics
DELETE FROM metrics

-- name: forget_workers
-- Those that live say so again within seconds.
DELETE FROM workers

-- name: forget_queues
DELETE FROM queues

-- name: count_again
INSERT INTO counts (queue, task, state, n) SELECT queue, task, state, count(*) FROM jobs GROUP BY queue, task, state
