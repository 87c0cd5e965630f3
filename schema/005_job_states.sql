-- A job's states, a row for each, so that they are its history: the row with the highest (attempt, rank) counts, and
-- of several the newest. `attempt` is when it was asked for, in ms; `rank` is the state's place in the order they come
-- in; `request` is what was asked.
ALTER TABLE backtest_jobs
    ADD COLUMN IF NOT EXISTS kind LowCardinality(String),
    ADD COLUMN IF NOT EXISTS attempt Int64,
    ADD COLUMN IF NOT EXISTS rank UInt8,
    ADD COLUMN IF NOT EXISTS request String,
    MODIFY ORDER BY (job_id, attempt, rank);

-- Rows of before that, one per job, as rows of now.
INSERT INTO backtest_jobs
    (job_id, state, spec, plan, data_digest, started_ms, reason, figures, updated_at, kind, attempt, rank)
SELECT job_id, if(state = 'running', 'planned', state), spec, plan, data_digest, started_ms, reason, figures,
    updated_at, if(JSONLength(spec, 'grid') > 0, 'sweep', 'backtest'), greatest(started_ms, 1),
    multiIf(state = 'done', 6, state = 'failed', 5, 1)
FROM backtest_jobs FINAL
WHERE kind = '' AND job_id NOT IN (SELECT job_id FROM backtest_jobs WHERE attempt > 0);
