"""The themes that come with Realize, beside Textual's own."""

from __future__ import annotations

from textual.theme import Theme

THEMES = (
    Theme(
        name="realize",
        primary="#4f9cf9", secondary="#8a7bf0", accent="#7fd1c7", foreground="#d7dce5", background="#12151c",
        surface="#181c25", panel="#232936", success="#7ccf8a", warning="#e8b45a", error="#f0717a",
    ),
    Theme(
        name="realize-light", dark=False,
        primary="#1f63c4", secondary="#5a47c9", accent="#0b7a70", foreground="#1d2430", background="#f4f5f7",
        surface="#ffffff", panel="#e3e7ee", success="#1f7a35", warning="#8f5b00", error="#b4232e",
    ),
    Theme(
        name="high-contrast",
        primary="#00d7ff", secondary="#ffff00", accent="#ffff00", foreground="#ffffff", background="#000000",
        surface="#000000", panel="#1c1c1c", success="#00ff5f", warning="#ffd700", error="#ff5f5f", text_alpha=1.0,
    ),
    # The colours of Okabe and Ito, which stay apart with any of the common colour blindnesses.
    Theme(
        name="colour-blind-safe",
        primary="#56b4e9", secondary="#cc79a7", accent="#f0e442", foreground="#e6e6e6", background="#14161a",
        surface="#1a1d23", panel="#272b33", success="#009e73", warning="#e69f00", error="#d55e00",
    ),
)  # fmt: skip

CYCLE = (*(theme.name for theme in THEMES), "nord", "gruvbox", "catppuccin-mocha", "dracula", "tokyo-night")
"""What the theme key goes through; the palette has all."""
