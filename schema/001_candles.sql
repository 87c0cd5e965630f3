-- Inserts of candles and their index are synced to the disk, so that a power loss loses none of them.
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
ORDER BY (symbol, timestamp)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

-- Volume scale of each symbol, fixed when it is first stored.
CREATE TABLE IF NOT EXISTS symbols
(
    symbol String,
    volume_scale UInt64,
    created_at DateTime64(3) DEFAULT now64(3)
)
ENGINE = ReplacingMergeTree()
ORDER BY (symbol)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;

-- Metadata index: one row per symbol and UTC day with candles. An empty digest means that a write to the day has not
-- finished: the day must be counted again before it is used.
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
ORDER BY (symbol, day)
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1;
