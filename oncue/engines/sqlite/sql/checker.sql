-- Each query is named after an invariant of a store and finds what breaks it: whose row it is, and what is wrong with
-- it. The numbers say what a promise is about: I1 one state and one end, I2 one place, I3 leases, I4 counters that only
-- grow, I6 cancelling, I7 unique keys, I8 dependencies, I14 counts, I17 readable records, I18 nothing left over.

-- fragment: ended
('completed', 'failed', 'cancelled')

-- fragment: pending
('scheduled', 'waiting', 'queued', 'retrying')

-- name: i1_a_job_is_in_one_of_the_eight_states
SELECT id, 'its state is ' || quote(state) FROM jobs
WHERE typeof(state) <> 'text' OR state NOT IN {pending} AND state <> 'running' AND state NOT IN {ended}

-- name: i1_a_job_has_an_end_exactly_if_it_has_ended
SELECT id, state || ', finished_at is ' || quote(finished_at) FROM jobs
WHERE (state IN {ended}) <> (finished_at IS NOT NULL)

-- name: i1_only_a_completed_job_has_a_result_and_each_has
SELECT jobs.id, state || iif(results.seq IS NULL, ' without', ' with') || ' result'
FROM jobs LEFT JOIN results USING (seq) WHERE (state = 'completed') <> (results.seq IS NOT NULL)

-- name: i1_a_job_that_ended_badly_says_why
SELECT id, state || ' without reason' FROM jobs WHERE state IN ('failed', 'cancelled') AND reason IS NULL

-- name: i2_a_job_waits_exactly_while_dependencies_are_open
SELECT id, state || ' with deps_open ' || quote(deps_open) FROM jobs WHERE (state = 'waiting') <> (deps_open > 0)

-- name: i2_a_waiting_job_is_linked_to_as_many_parents_as_it_waits_for
SELECT id, 'deps_open is ' || quote(deps_open) || ', links: ' || count(deps.parent)
FROM jobs LEFT JOIN deps ON deps.child = jobs.seq AND deps.is_open WHERE state = 'waiting'
GROUP BY jobs.seq HAVING count(deps.parent) <> deps_open

-- name: i3_a_job_has_owner_and_lease_exactly_while_it_runs
SELECT id, state || ', owner ' || quote(owner) || ', lease_until ' || quote(lease_until) FROM jobs
WHERE (state = 'running') <> (owner IS NOT NULL) OR (state = 'running') <> (lease_until IS NOT NULL)

-- name: i3_a_running_job_has_a_token_a_nonce_and_a_start
SELECT id, 'token ' || quote(token) || ', nonce ' || quote(nonce) || ', started_at ' || quote(started_at) FROM jobs
WHERE state = 'running' AND NOT (
    token > 0 AND typeof(nonce) = 'blob' AND length(nonce) = 16 AND started_at IS NOT NULL AND attempts > 0
)

-- name: i4_counters_are_not_negative_and_crashes_do_not_pass_their_limit
SELECT id, 'attempts ' || attempts || ', crashes ' || crashes || ' of ' || max_crashes || ', token ' || token FROM jobs
WHERE attempts < 0 OR crashes < 0 OR token < 0 OR revision < 1 OR crashes > max(max_crashes, 1)

-- name: i4_an_attempt_on_record_is_no_newer_than_its_job
SELECT jobs.id, 'attempt with token ' || attempts.token || ', the job has ' || jobs.token
FROM attempts JOIN jobs ON jobs.seq = attempts.job WHERE attempts.token > jobs.token

-- name: i6_a_request_to_cancel_ends_with_its_job
SELECT id, state || ' with cancel_requested' FROM jobs WHERE cancel_requested AND state NOT IN ('running', 'cancelled')

-- name: i7_a_unique_key_belongs_to_a_job_that_may_hold_it
SELECT uniques.holder, 'holds ' || quote(uniques.key) || ' but is ' || coalesce(state, 'gone')
FROM uniques LEFT JOIN jobs ON jobs.seq = uniques.seq AND jobs.id = uniques.holder AND jobs.unique_key = uniques.key
WHERE until IS NULL AND CASE jobs.unique_while
    WHEN 'running' THEN state IN {ended}
    WHEN 'pending' THEN state NOT IN {pending}
    ELSE 1
END

-- name: i7_a_job_holds_its_unique_key_as_long_as_it_asked
SELECT id, state || ' does not hold ' || quote(unique_key) || '; holder: ' || coalesce(uniques.holder, 'nobody')
FROM jobs LEFT JOIN uniques ON uniques.key = jobs.unique_key
WHERE (unique_while = 'running' AND state NOT IN {ended}
       OR unique_while = 'pending' AND state IN {pending} AND started_at IS NULL)
AND (uniques.seq IS NOT jobs.seq OR uniques.holder IS NOT jobs.id)

-- name: i7_only_a_key_held_for_a_time_has_an_end
SELECT uniques.holder, 'until ' || quote(until) || ' for while ' || quote(unique_while)
FROM uniques JOIN jobs ON jobs.seq = uniques.seq AND jobs.id = uniques.holder
WHERE (unique_while = 'ttl') <> (until IS NOT NULL)

-- name: i8_nobody_waits_for_a_job_that_has_ended_or_is_gone
SELECT coalesce(child.id, 'position ' || deps.child), 'waits for ' || coalesce(parent.id || ', ' || parent.state, 'nobody')
FROM deps LEFT JOIN jobs AS parent ON parent.seq = deps.parent LEFT JOIN jobs AS child ON child.seq = deps.child
WHERE parent.state IS NULL OR deps.is_open AND parent.state IN {ended}

-- name: i8_a_link_ends_with_its_child
SELECT child.id, 'has ended and is still linked' FROM deps JOIN jobs AS child ON child.seq = deps.child
WHERE child.state IN {ended}

-- name: i8_a_job_that_is_linked_knows_it
SELECT id, 'has_parents is 0' FROM jobs WHERE NOT has_parents AND EXISTS (SELECT 1 FROM deps WHERE child = jobs.seq)

-- name: i8_a_job_that_is_waited_for_knows_it
SELECT id, 'has_dependents is 0' FROM jobs
WHERE NOT has_dependents AND EXISTS (SELECT 1 FROM deps WHERE parent = jobs.seq)

-- name: i14_counted_jobs_are_the_jobs
SELECT queue || '/' || task || '/' || state, 'counted ' || sum(counted) || ', there are ' || sum(there) FROM (
    SELECT queue, task, state, n AS counted, 0 AS there FROM counts
    UNION ALL
    SELECT queue, task, state, 0, count(*) FROM jobs GROUP BY queue, task, state
) GROUP BY queue, task, state HAVING sum(counted) <> sum(there)

-- name: i17_a_record_is_of_the_types_it_is_read_as
SELECT seq || ' ' || quote(id), 'a column has a value of another type' FROM jobs WHERE
    typeof(id) <> 'text' OR typeof(task) <> 'text' OR typeof(queue) <> 'text'
    OR typeof(reason) NOT IN ('text', 'null') OR typeof(priority) <> 'integer'
    OR typeof(created_at) <> 'integer' OR typeof(due_at) <> 'integer'
    OR typeof(expires_at) NOT IN ('integer', 'null') OR typeof(started_at) NOT IN ('integer', 'null')
    OR typeof(finished_at) NOT IN ('integer', 'null') OR typeof(keep_until) NOT IN ('integer', 'null')
    OR typeof(keep_ms) <> 'integer' OR typeof(timeout_ms) NOT IN ('integer', 'null')
    OR typeof(attempts) <> 'integer' OR typeof(crashes) <> 'integer'
    OR typeof(max_attempts) <> 'integer' OR typeof(max_crashes) <> 'integer'
    OR typeof(token) <> 'integer' OR typeof(nonce) NOT IN ('blob', 'null')
    OR typeof(owner) NOT IN ('text', 'null') OR typeof(lease_until) NOT IN ('integer', 'null')
    OR cancel_requested NOT IN (0, 1) OR typeof(deps_open) <> 'integer'
    OR after_any NOT IN (0, 1) OR has_dependents NOT IN (0, 1)
    OR typeof(unique_key) NOT IN ('text', 'null') OR typeof(unique_while) NOT IN ('text', 'null')
    OR (unique_key IS NULL) <> (unique_while IS NULL)
    OR typeof(request) NOT IN ('blob', 'null') OR typeof(error) NOT IN ('text', 'null')
    OR typeof(progress) NOT IN ('blob', 'null') OR typeof(revision) <> 'integer'

-- name: i17_meta_is_an_object_of_strings
SELECT id, 'meta is ' || substr(quote(meta), 1, 80) FROM jobs
WHERE meta IS NOT NULL AND CASE WHEN typeof(meta) <> 'text' OR NOT json_valid(meta) THEN 1
    ELSE json_type(meta) <> 'object' OR EXISTS (SELECT 1 FROM json_each(jobs.meta) WHERE type <> 'text') END

-- name: i18_an_open_job_has_its_payload
SELECT id, state || ' without payload' FROM jobs
WHERE state NOT IN {ended} AND NOT EXISTS (SELECT 1 FROM payloads WHERE payloads.seq = jobs.seq)

-- name: i18_an_ended_job_and_no_other_has_a_time_to_go
SELECT id, state || ', keep_until is ' || quote(keep_until) FROM jobs
WHERE (state IN {ended}) <> (keep_until IS NOT NULL)

-- name: i18_every_payload_has_its_job
SELECT 'position ' || seq, 'payload of no job' FROM payloads WHERE seq NOT IN (SELECT seq FROM jobs)

-- name: i18_every_result_has_its_job
SELECT 'position ' || seq, 'result of no job' FROM results WHERE seq NOT IN (SELECT seq FROM jobs)

-- name: i18_every_attempt_has_its_job
SELECT 'position ' || job, 'attempt of no job' FROM attempts WHERE job NOT IN (SELECT seq FROM jobs) GROUP BY job

-- name: i18_every_item_of_a_feed_has_its_job
SELECT 'position ' || job, 'feed of no job' FROM feed WHERE job NOT IN (SELECT seq FROM jobs) GROUP BY job

-- name: i18_every_link_has_its_child
SELECT 'position ' || child, 'link of no child' FROM deps WHERE child NOT IN (SELECT seq FROM jobs) GROUP BY child

-- name: i18_at_most_100_attempts_of_a_job_are_kept
SELECT jobs.id, count(*) || ' attempts' FROM attempts JOIN jobs ON jobs.seq = attempts.job
GROUP BY attempts.job HAVING count(*) > 100

-- name: i18_at_most_10_000_items_of_an_attempt_are_kept
SELECT jobs.id, count(*) || ' items of token ' || feed.token FROM feed JOIN jobs ON jobs.seq = feed.job
GROUP BY feed.job, feed.token HAVING count(*) > 10000

-- name: i18_only_the_latest_progress_of_a_job_is_kept
SELECT jobs.id, count(*) || ' items of progress' FROM feed JOIN jobs ON jobs.seq = feed.job
WHERE kind = 'progress' GROUP BY feed.job HAVING count(*) > 1

-- name: i18_the_store_remembers_nothing_else_of_itself
SELECT 'meta', 'key ' || quote(key) FROM meta WHERE key NOT IN ('boot_id', 'last_rescue', 'no_rescue_before')
