-- Funding rates of perpetual futures, times 10^8; positive: longs pay shorts.
CREATE TABLE IF NOT EXISTS funding_rates
(
    symbol LowCardinality(String),
    timestamp DateTime64(3),
    rate Int64
)
ENGINE = ReplacingMergeTree()
ORDER BY (symbol, timestamp);
