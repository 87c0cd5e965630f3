-- History of a job, one row per state: the row with the highest (attempt, rank) is valid, of several the newest.
-- `attempt`: time of the request in ms; `rank`: position of the state in the sequence of states; `request`: as JSON.
ALTER TABLE backtest_jobs
    ADD COLUMN IF NOT EXISTS kind LowCardinality(String),
    ADD COLUMN IF NOT EXISTS attempt Int64,
    ADD COLUMN IF NOT EXISTS rank UInt8,
    ADD COLUMN IF NOT EXISTS request String,
    MODIFY ORDER BY (job_id, attempt, rank);

-- Convert the rows of earlier versions, one per job.
INSERT INTO backtest_jobs
    (job_id, state, spec, plan, data_digest, started_ms, reason, figures, updated_at, kind, attempt, rank)
SELECT job_id, if(state = 'running', 'planned', state), spec, plan, data_digest, started_ms, reason, figures,
    updated_at, if(JSONLength(spec, 'grid') > 0, 'sweep', 'backtest'), greatest(started_ms, 1),
    multiIf(state = 'done', 6, state = 'failed', 5, 1)
FROM backtest_jobs FINAL
WHERE kind = '' AND job_id NOT IN (SELECT job_id FROM backtest_jobs WHERE attempt > 0);
