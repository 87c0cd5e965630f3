-- Outcome of one parameter set on one slice from one start state, shared by all jobs. The keys are defined in
-- core/candlemill/pipeline/cache_keys.py. Equal keys have equal outcomes, so replacing a row changes nothing.
CREATE TABLE IF NOT EXISTS slice_outcomes
(
    set_key String,
    code LowCardinality(String),
    slice_key String,
    start_state String,
    first_ms Int64,
    start_ms Int64,
    end_ms Int64,
    guessed Bool,
    end_state String,
    summary String,
    daily String,
    days String,
    created_at DateTime DEFAULT now()
)
ENGINE = ReplacingMergeTree()
ORDER BY (set_key, code, slice_key, start_state)
TTL created_at + INTERVAL 30 DAY
SETTINGS index_granularity_bytes = 1048576;
