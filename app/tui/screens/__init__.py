"""Modal screens: confirmation, help, details."""
