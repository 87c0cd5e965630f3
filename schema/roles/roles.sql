-- Minimal rights of each function. An administrator applies this file in the database of the tables, after them; on a
-- cluster, in the form that `candlemill cluster schema --on-cluster NAME --roles` prints. Create users yourself:
--   CREATE USER candlemill_executor IDENTIFIED BY '...' DEFAULT ROLE candlemill_executor;

-- Only an administrator creates or changes tables. Functions check that all columns exist, for which they need SHOW.
-- They read candles and jobs, but no other table of this database.
CREATE ROLE IF NOT EXISTS candlemill_reader;
GRANT SHOW TABLES, SHOW COLUMNS ON * TO candlemill_reader;
GRANT SELECT ON market_data_1m TO candlemill_reader;
GRANT SELECT ON symbols TO candlemill_reader;
GRANT SELECT ON coverage_days TO candlemill_reader;
GRANT SELECT ON funding_rates TO candlemill_reader;
GRANT SELECT ON margin_tiers TO candlemill_reader;
GRANT SELECT ON backtest_jobs TO candlemill_reader;
GRANT SELECT ON backtest_slices TO candlemill_reader;
GRANT SELECT ON backtest_results TO candlemill_reader;
GRANT SELECT ON slice_outcomes TO candlemill_reader;
GRANT SELECT ON job_notes TO candlemill_reader;
GRANT SELECT ON paper_runs TO candlemill_reader;
GRANT SELECT ON paper_log TO candlemill_reader;
GRANT SELECT ON paper_marks TO candlemill_reader;

-- The gateway accepts, cancels and deletes jobs, and counts days with an unfinished write again. It writes no results.
CREATE ROLE IF NOT EXISTS candlemill_gateway;
GRANT candlemill_reader TO candlemill_gateway;
GRANT SELECT ON candle_writers TO candlemill_gateway;
GRANT INSERT ON backtest_jobs TO candlemill_gateway;
GRANT INSERT ON coverage_days TO candlemill_gateway;
GRANT ALTER DELETE ON backtest_jobs TO candlemill_gateway;
GRANT ALTER DELETE ON backtest_slices TO candlemill_gateway;
GRANT ALTER DELETE ON backtest_results TO candlemill_gateway;
GRANT INSERT ON job_notes TO candlemill_gateway;
GRANT ALTER DELETE ON job_notes TO candlemill_gateway;

-- split and aggregate write jobs and results, and outcomes of merged slices, but no candles.
CREATE ROLE IF NOT EXISTS candlemill_planner;
GRANT candlemill_reader TO candlemill_planner;
GRANT INSERT ON backtest_jobs TO candlemill_planner;
GRANT INSERT ON backtest_slices TO candlemill_planner;
GRANT INSERT ON backtest_results TO candlemill_planner;
GRANT INSERT ON slice_outcomes TO candlemill_planner;

-- execute runs strategies, which may be users' code: it writes outcomes and task records, but no results or job states.
CREATE ROLE IF NOT EXISTS candlemill_executor;
GRANT candlemill_reader TO candlemill_executor;
GRANT INSERT ON backtest_slices TO candlemill_executor;
GRANT INSERT ON slice_outcomes TO candlemill_executor;

-- The feed and ingests write candles and their index. They neither read nor write jobs.
CREATE ROLE IF NOT EXISTS candlemill_feed;
GRANT SHOW TABLES, SHOW COLUMNS ON * TO candlemill_feed;
GRANT SELECT, INSERT ON market_data_1m TO candlemill_feed;
GRANT SELECT, INSERT ON symbols TO candlemill_feed;
GRANT SELECT, INSERT ON coverage_days TO candlemill_feed;
GRANT SELECT, INSERT ON candle_outages TO candlemill_feed;
GRANT SELECT, INSERT ON candle_audits TO candlemill_feed;
GRANT SELECT, INSERT ON archive_files TO candlemill_feed;
GRANT SELECT, INSERT ON candle_writers TO candlemill_feed;
GRANT SELECT, INSERT ON funding_rates TO candlemill_feed;
GRANT SELECT, INSERT ON margin_tiers TO candlemill_feed;

-- Paper runs read candles and write their own logs, and count days with an unfinished write again. They write no candles
-- and no jobs.
CREATE ROLE IF NOT EXISTS candlemill_paper;
GRANT candlemill_reader TO candlemill_paper;
GRANT SELECT ON candle_writers TO candlemill_paper;
GRANT INSERT ON coverage_days TO candlemill_paper;
GRANT INSERT ON paper_runs TO candlemill_paper;
GRANT INSERT ON paper_log TO candlemill_paper;
GRANT INSERT ON paper_marks TO candlemill_paper;
