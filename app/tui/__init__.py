"""The dashboard (spec 7): panes over `core.api.Api`, reached through `app.bridge`."""
