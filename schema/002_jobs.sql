-- One row per finished parameter set. Money is scaled by 10^8 and for the job's quantity; the row of a sweep's
-- parameter set carries the job id that the set has when it is asked for alone.
CREATE TABLE IF NOT EXISTS backtest_results
(
    job_id String,
    strategy_id String,
    total_pnl Int64,
    sharpe_ratio Int64,
    max_drawdown Int64,
    execution_time_ms UInt64,
    created_at DateTime DEFAULT now(),
    sweep_id String,
    result String,
    daily String
)
ENGINE = MergeTree()
ORDER BY (job_id);

-- The state of every job; 005 says which row of a job counts.
CREATE TABLE IF NOT EXISTS backtest_jobs
(
    job_id String,
    state LowCardinality(String),
    spec String,
    plan String,
    data_digest String,
    started_ms Int64,
    reason String,
    figures String,
    updated_at DateTime64(6) DEFAULT now64(6)
)
ENGINE = ReplacingMergeTree(updated_at)
ORDER BY (job_id);

-- The log of a job's tasks that are done: kind 'guess' (from a warm-up), 'exact' (a repair), 'done' (a merged batch).
-- What they found is in slice_outcomes. A task's row is the same however often it runs.
CREATE TABLE IF NOT EXISTS backtest_slices
(
    job_id String,
    batch UInt32,
    kind LowCardinality(String),
    slice UInt32,
    task String,
    created_at DateTime DEFAULT now()
)
ENGINE = ReplacingMergeTree()
ORDER BY (job_id, batch, kind, slice, task)
TTL created_at + INTERVAL 30 DAY;

-- What later versions added to tables that stand already.
ALTER TABLE backtest_results ADD COLUMN IF NOT EXISTS daily String;
ALTER TABLE backtest_jobs ADD COLUMN IF NOT EXISTS figures String;
