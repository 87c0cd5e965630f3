-- Maintenance tiers of perpetual futures, one row for each date from which they are in force: a JSON list of
-- [notional floor, rate, maintenance amount], amounts times 10^8, rates in parts per million. The last inserted row of
-- a date counts.
CREATE TABLE IF NOT EXISTS margin_tiers
(
    symbol LowCardinality(String),
    valid_from DateTime64(3),
    tiers String,
    inserted_at DateTime64(3) DEFAULT now64(3)
)
ENGINE = ReplacingMergeTree(inserted_at)
ORDER BY (symbol, valid_from);
