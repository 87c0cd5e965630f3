-- Of a sweep's merged batch: scores of its sets and sums of their daily profits, which its guards are made of.
ALTER TABLE backtest_slices ADD COLUMN IF NOT EXISTS part String CODEC(ZSTD(1));
