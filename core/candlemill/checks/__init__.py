"""The probes behind `candlemill.check`: small markets, and what an honest strategy must not do on them."""
