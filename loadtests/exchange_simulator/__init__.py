"""An exchange that never was: Binance's and Bybit's public protocols on this machine, with faults from a seed.

    python -m loadtests.exchange_simulator --port 9000 --symbols BTCUSDT,ETHUSDT --seed 1 --speed 60

Streams on the port after that of REST and of the archive's files, all of one market: synthetic from the seed, or real
candles from kline files. Its time is virtual and runs `speed` times as fast as ours. See docs/feed.md.
"""
