"""Measured work: whole daemons over loopback with TLS, beside other tools where they are installed.

A benchmark is not a timed test: it reports. The suite runs the small size to see that it works.
"""
