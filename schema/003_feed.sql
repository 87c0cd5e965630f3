-- Latest trading rules of a symbol; volume_scale never changes.
ALTER TABLE symbols ADD COLUMN IF NOT EXISTS tick String;
ALTER TABLE symbols ADD COLUMN IF NOT EXISTS step String;
ALTER TABLE symbols ADD COLUMN IF NOT EXISTS status String;

-- Intervals (start <= t < end) without candles at the exchange; they are not requested again.
CREATE TABLE IF NOT EXISTS candle_outages
(
    symbol LowCardinality(String),
    start_ms Int64,
    end_ms Int64,
    found_at DateTime64(3) DEFAULT now64(3)
)
ENGINE = ReplacingMergeTree(found_at)
ORDER BY (symbol, start_ms, end_ms);

-- Files of the public archive whose candles are stored, with their SHA-256.
CREATE TABLE IF NOT EXISTS archive_files
(
    name String,
    sha256 String,
    stored_at DateTime64(3) DEFAULT now64(3)
)
ENGINE = ReplacingMergeTree(stored_at)
ORDER BY (name);

-- One row per writer: whether it is writing candles, and of which days. Meanwhile other processes treat these days as
-- uncounted. A writer that died stays open until its row is older than the longest insert.
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

-- Time up to which a feed has compared candles with the exchange's history, since streamed candles are provisional.
CREATE TABLE IF NOT EXISTS candle_audits
(
    symbol LowCardinality(String),
    until_ms Int64
)
ENGINE = ReplacingMergeTree(until_ms)
ORDER BY (symbol);
