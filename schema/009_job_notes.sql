-- Labels, notes and tags that users give jobs. They are no part of a job: neither its id nor its result depends on them.
CREATE TABLE IF NOT EXISTS job_notes
(
    job_id String,
    label String,
    note String,
    tags Array(String),
    updated_at DateTime64(6) DEFAULT now64(6)
)
ENGINE = ReplacingMergeTree(updated_at)
ORDER BY (job_id);
