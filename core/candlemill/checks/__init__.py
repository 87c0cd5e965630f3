"""The tests of `candlemill.check`: small synthetic markets, and properties that a correct strategy has on them."""
