-- What each function may do, and no more. An administrator applies it in the database that holds the tables, after
-- them; on a cluster as `candlemill cluster schema --on-cluster NAME --roles` prints it. Users are yours to make:
--   CREATE USER candlemill_execute IDENTIFIED BY '...' DEFAULT ROLE candlemill_executor;

-- Nobody but an administrator creates or changes tables: functions look whether all columns stand, for which they must
-- see them, and then send nothing.
CREATE ROLE IF NOT EXISTS candlemill_reader;
GRANT SHOW TABLES, SHOW COLUMNS, SELECT ON * TO candlemill_reader;

-- The gateway accepts, cancels and deletes jobs, and counts days again whose write broke off. It writes no result.
CREATE ROLE IF NOT EXISTS candlemill_gateway;
GRANT candlemill_reader TO candlemill_gateway;
GRANT INSERT ON backtest_jobs TO candlemill_gateway;
GRANT INSERT ON coverage_days TO candlemill_gateway;
GRANT ALTER DELETE ON backtest_jobs TO candlemill_gateway;
GRANT ALTER DELETE ON backtest_slices TO candlemill_gateway;
GRANT ALTER DELETE ON backtest_results TO candlemill_gateway;

-- split, execute and aggregate write what they compute. They write no candle.
CREATE ROLE IF NOT EXISTS candlemill_executor;
GRANT candlemill_reader TO candlemill_executor;
GRANT INSERT ON backtest_jobs TO candlemill_executor;
GRANT INSERT ON backtest_slices TO candlemill_executor;
GRANT INSERT ON backtest_results TO candlemill_executor;
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
