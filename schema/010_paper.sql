-- Paper runs: a strategy on candles as they close. `request_key` is equal for runs that differ in their start alone.
CREATE TABLE IF NOT EXISTS paper_runs
(
    run_id String,
    request_key String,
    symbol LowCardinality(String),
    strategy LowCardinality(String),
    spec String,
    since_ms Int64,
    begun_at DateTime64(3) DEFAULT now64(3)
)
ENGINE = ReplacingMergeTree(begun_at)
ORDER BY (run_id);

-- Log of the runs, in the order of `claim` and `seq`; paper/log.py defines what a row means. Of rows with the same `seq`
-- that of the highest claim counts: each process that goes on with a run has its own claim.
CREATE TABLE IF NOT EXISTS paper_log
(
    run_id String,
    seq UInt64,
    claim UInt64,
    kind LowCardinality(String),
    t Int64,
    open Int64,
    high Int64,
    low Int64,
    close Int64,
    volume Int64,
    state String,
    event LowCardinality(String),
    attempt UInt32,
    data String,
    created_at DateTime DEFAULT now()
)
ENGINE = ReplacingMergeTree()
ORDER BY (run_id, seq, claim)
TTL created_at + INTERVAL 30 DAY DELETE WHERE kind IN ('minute', 'inputs');

-- How far a run's log has been published (`published`: the highest `seq` with all before it), and the claim of the
-- process that runs it (`claim`).
CREATE TABLE IF NOT EXISTS paper_marks
(
    run_id String,
    kind LowCardinality(String),
    value UInt64
)
ENGINE = ReplacingMergeTree(value)
ORDER BY (run_id, kind);
