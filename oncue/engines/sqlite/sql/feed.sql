-- name: append
INSERT OR IGNORE INTO feed (job, token, ordinal, at, kind, body) VALUES (?, ?, ?, ?, ?, ?)

-- name: newest_progress
SELECT max(ordinal) FROM feed WHERE job = ? AND token = ? AND kind = 'progress'

-- name: drop_older_progress
DELETE FROM feed WHERE job = ? AND kind = 'progress' AND (token, ordinal) < (?, ?)

-- name: set_progress
UPDATE jobs SET progress = ? WHERE seq = ?

-- name: trim
DELETE FROM feed WHERE job = ? AND token = ? AND ordinal <= ?

-- name: read
SELECT token, ordinal, kind, body, at FROM feed
WHERE job = (SELECT seq FROM jobs WHERE id = ?) AND (token, ordinal) > (?, ?)
ORDER BY token, ordinal LIMIT ?
