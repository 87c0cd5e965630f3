-- Of a campaign's step the campaign, which a list leaves out; read out of what was asked once, not with every list.
ALTER TABLE backtest_jobs ADD COLUMN IF NOT EXISTS parent String DEFAULT JSONExtractString(request, 'parent');
