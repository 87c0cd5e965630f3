-- Results and outcomes are texts that resemble each other, which take half the space with these codecs. Parts of earlier
-- releases keep theirs until they are merged.
ALTER TABLE backtest_results
    MODIFY COLUMN job_id String CODEC(ZSTD(1)),
    MODIFY COLUMN sweep_id String CODEC(ZSTD(1)),
    MODIFY COLUMN result String CODEC(ZSTD(1)),
    MODIFY COLUMN daily String CODEC(ZSTD(3));
ALTER TABLE slice_outcomes
    MODIFY COLUMN set_key String CODEC(ZSTD(1)),
    MODIFY COLUMN slice_key String CODEC(ZSTD(1)),
    MODIFY COLUMN start_state String CODEC(ZSTD(1)),
    MODIFY COLUMN end_state String CODEC(ZSTD(1)),
    MODIFY COLUMN summary String CODEC(ZSTD(1)),
    MODIFY COLUMN daily String CODEC(ZSTD(1)),
    MODIFY COLUMN days String CODEC(ZSTD(1));
