"""A world in which everything goes wrong by seed, around the functions' own handlers.

    python -m loadtests.fault_simulation [--seeds 1000] [--first 1] [--minutes 10] [--seed 42]

Time, the Broker, the store and the functions' processes are virtual; `handle` of `functions/*/main.py` and all that it
calls are not. See docs/simulation.md.
"""
