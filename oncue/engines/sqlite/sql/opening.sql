-- name: void_workers
-- After a boot no worker of before it lives, whatever it said last.
UPDATE workers SET expires = 0
