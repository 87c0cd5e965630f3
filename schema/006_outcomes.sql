-- What one parameter set made of one slice from one start state, for every job that needs it; core/candlemill/addresses.py
-- says what the keys are made of. Equal addresses have equal outcomes, so replacing them changes nothing.
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
TTL created_at + INTERVAL 30 DAY;
