"""The functions as processes, a broker between them on this machine, and users who send CloudEvents (locust)."""
