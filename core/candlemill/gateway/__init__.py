"""The gateway: the REST interface and the dashboard, an ASGI app. Stateless: any number of instances can run.

app.py           the app: routes, documentation, limits
job_service.py   dependencies of a handler: the store, the metadata index, the event publisher
routes/          handlers: jobs, results of finished jobs, symbols with candles and strategies
schemas/         response schemas, a module for each group of routes
decimals.py      responses with decimal texts
pagination.py    cursors of lists
replays.py       cache of recomputed runs
batch_loader.py  batching of concurrent lookups
recent.py        FIFO cache
access.py        keys, origins, hosts; limits of rates and sizes; response headers
api_keys.py      the file of API keys
problems.py      errors as problem details (RFC 9457)
middleware.py    access log, metrics, tracing
static.py        the dashboard's files
main.py          the gateway as a separate process
standalone.py    `candlemill serve`: all services in one process
"""
