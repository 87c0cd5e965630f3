-- A symbol's trading rules, as the exchange last said them; volume_scale stays what it was when it was first stored.
ALTER TABLE symbols ADD COLUMN IF NOT EXISTS tick String;
ALTER TABLE symbols ADD COLUMN IF NOT EXISTS step String;
ALTER TABLE symbols ADD COLUMN IF NOT EXISTS status String;

-- Stretches (start <= t < end) in which the exchange itself has no candles: they are not asked for again.
CREATE TABLE IF NOT EXISTS candle_outages
(
    symbol LowCardinality(String),
    start_ms Int64,
    end_ms Int64,
    found_at DateTime64(3) DEFAULT now64(3)
)
ENGINE = ReplacingMergeTree(found_at)
ORDER BY (symbol, start_ms, end_ms);

-- Files of the public archive whose candles are in the store, with the sha256 that they had.
CREATE TABLE IF NOT EXISTS archive_files
(
    name String,
    sha256 String,
    stored_at DateTime64(3) DEFAULT now64(3)
)
ENGINE = ReplacingMergeTree(stored_at)
ORDER BY (name);

-- One row per writer: whether it is writing candles now, and of which days. While it is, nobody else takes these days
-- for counted. A writer that died stays open until its row is older than any insert can last.
CREATE TABLE IF NOT EXISTS candle_writers
(
    writer String,
    version UInt64,
    open UInt8,
    first_ms Int64,
    last_ms Int64
)
ENGINE = ReplacingMergeTree(version)
ORDER BY (writer)
TTL toDateTime(intDiv(version, 1000000000)) + INTERVAL 7 DAY;

-- Until when a feed has compared what is stored with the exchange's history: the streams' word alone is a first edition.
CREATE TABLE IF NOT EXISTS candle_audits
(
    symbol LowCardinality(String),
    until_ms Int64
)
ENGINE = ReplacingMergeTree(until_ms)
ORDER BY (symbol);
