"""The commands, a module each; `register` adds them to the command line."""
