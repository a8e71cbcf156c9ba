"""The five panes and what they have in common."""
