-- name: open_jobs
SELECT coalesce(sum(n), 0) FROM counts WHERE state NOT IN ('completed', 'failed', 'cancelled')
