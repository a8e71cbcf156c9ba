"""Types, storage and consensus; knows no network, no FUSE, no screen."""
