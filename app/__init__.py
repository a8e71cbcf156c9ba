"""Command line, daemon and dashboard."""
