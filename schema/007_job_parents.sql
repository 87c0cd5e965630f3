-- Workflow of a step, which lists omit; extracted from the request once, not for every list.
ALTER TABLE backtest_jobs ADD COLUMN IF NOT EXISTS parent String DEFAULT JSONExtractString(request, 'parent');
