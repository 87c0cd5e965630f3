-- One row per finished parameter set. Money is times 10^8, for the job's quantity. A parameter set of a sweep has the
-- job id of a single backtest of the same set. Granules are small, because a merge of parts and a look-up of one row read
-- whole ones.
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
ORDER BY (job_id)
SETTINGS index_granularity_bytes = 1048576;

-- States of all jobs; 005_job_states.sql defines which row of a job is valid.
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

-- Records of a job's finished tasks: kind 'guess' (from a warm-up), 'exact' (a repair), 'done' (a merged batch).
-- Their outcomes are in slice_outcomes. A task that runs again writes the same row.
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

-- Columns that later versions added.
ALTER TABLE backtest_results ADD COLUMN IF NOT EXISTS daily String;
ALTER TABLE backtest_jobs ADD COLUMN IF NOT EXISTS figures String;
