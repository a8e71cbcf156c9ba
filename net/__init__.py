"""Identity, connections and services."""
