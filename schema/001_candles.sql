-- Closed one-minute candles. Prices are decimal * 10^8, volume decimal * symbols.volume_scale.
CREATE TABLE IF NOT EXISTS market_data_1m
(
    symbol LowCardinality(String),
    timestamp DateTime64(3),
    open UInt64,
    high UInt64,
    low UInt64,
    close UInt64,
    volume UInt64
)
ENGINE = ReplacingMergeTree()
PARTITION BY toYYYYMM(timestamp)
ORDER BY (symbol, timestamp);

-- What is fixed when a symbol is first stored.
CREATE TABLE IF NOT EXISTS symbols
(
    symbol String,
    volume_scale UInt64,
    created_at DateTime64(3) DEFAULT now64(3)
)
ENGINE = ReplacingMergeTree()
ORDER BY (symbol);

-- The metadata index: one row per symbol and UTC day that has candles. An empty digest means that a write to the
-- day has begun and not ended: the day is counted again before anyone relies on it.
CREATE TABLE IF NOT EXISTS coverage_days
(
    symbol LowCardinality(String),
    day Date,
    rows UInt16,
    first_ms Int64,
    last_ms Int64,
    digest String,
    version UInt64
)
ENGINE = ReplacingMergeTree(version)
ORDER BY (symbol, day);
