"""The gateway: the REST interface and the dashboard, an ASGI app. Stateless: any number of instances.

app.py       the app: routes, documentation, limits
world.py     what a request may touch: the store, the index, where events go
jobs.py      asking for jobs, watching, cancelling, listing them
explore.py   what a finished job has to show: equity, trades, a sweep's rows and heat map
market.py    symbols, candles, strategies
answers.py   the shapes of answers
guards.py    keys, origins, headers
problems.py  errors as RFC 9457 says
"""
