"""Users of the REST interface, many at once (locust).

python -m loadtests gateway                                        # against a `candlemill serve` of its own
locust -f loadtests/gateway/users.py --host http://localhost:8080  # with locust's own page
"""
