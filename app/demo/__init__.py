"""``realize demo``: a household of two peers on this machine, with sample files.

Owns the throw-away household (`app.demo.household`, which tests and benchmarks use too), the sample
files and the narrated run. Knows the daemon only by its command line and its mount.
"""

from app.demo.entry import run

__all__ = ["run"]
