-- Number of a sweep's parameter set: its position among the points of the grid, which orders sets with equal figures.
-- Rows of earlier releases have 0.
ALTER TABLE backtest_results ADD COLUMN IF NOT EXISTS number UInt32;
