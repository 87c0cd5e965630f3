-- What each function may do, and no more. An administrator applies it in the database that holds the tables, after
-- them; on a cluster as `candlemill cluster schema --on-cluster NAME --roles` prints it. Users are yours to make:
--   CREATE USER candlemill_executor IDENTIFIED BY '...' DEFAULT ROLE candlemill_executor;

-- Nobody but an administrator creates or changes tables: functions look whether all columns stand, for which they must
-- see them, and then send nothing.
-- They read candles and jobs, and no other table that there may be in this database.
CREATE ROLE IF NOT EXISTS candlemill_reader;
GRANT SHOW TABLES, SHOW COLUMNS ON * TO candlemill_reader;
GRANT SELECT ON market_data_1m TO candlemill_reader;
GRANT SELECT ON symbols TO candlemill_reader;
GRANT SELECT ON coverage_days TO candlemill_reader;
GRANT SELECT ON funding_rates TO candlemill_reader;
GRANT SELECT ON backtest_jobs TO candlemill_reader;
GRANT SELECT ON backtest_slices TO candlemill_reader;
GRANT SELECT ON backtest_results TO candlemill_reader;
GRANT SELECT ON slice_outcomes TO candlemill_reader;

-- The gateway accepts, cancels and deletes jobs, and counts days again whose write broke off. It writes no result.
CREATE ROLE IF NOT EXISTS candlemill_gateway;
GRANT candlemill_reader TO candlemill_gateway;
GRANT SELECT ON candle_writers TO candlemill_gateway;
GRANT INSERT ON backtest_jobs TO candlemill_gateway;
GRANT INSERT ON coverage_days TO candlemill_gateway;
GRANT ALTER DELETE ON backtest_jobs TO candlemill_gateway;
GRANT ALTER DELETE ON backtest_slices TO candlemill_gateway;
GRANT ALTER DELETE ON backtest_results TO candlemill_gateway;

-- split and aggregate write jobs and results. They write no candle and no outcome.
CREATE ROLE IF NOT EXISTS candlemill_planner;
GRANT candlemill_reader TO candlemill_planner;
GRANT INSERT ON backtest_jobs TO candlemill_planner;
GRANT INSERT ON backtest_slices TO candlemill_planner;
GRANT INSERT ON backtest_results TO candlemill_planner;

-- execute runs strategies, which are anybody's code: it writes what they found of slices, no result and no job's state.
CREATE ROLE IF NOT EXISTS candlemill_executor;
GRANT candlemill_reader TO candlemill_executor;
GRANT INSERT ON backtest_slices TO candlemill_executor;
GRANT INSERT ON slice_outcomes TO candlemill_executor;

-- The feed, and whoever ingests, write candles and their index. They write no job, and read none.
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
