"""The independent reference of the trading semantics: slow, plain Python, written from the specification alone.

The modules of this folder import nothing of the engine. One idea is one module; each names its paragraph.
"""
