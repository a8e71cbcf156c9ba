"""The themes that come with Realize, beside Textual's own."""

from __future__ import annotations

from textual.color import Color, ColorParseError
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
        surface="#000000", panel="#1c1c1c", success="#00ff5f", warning="#ffd700",
        error="#ff5f5f", text_alpha=1.0,
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


def shades(variables: dict[str, str]) -> dict[str, str]:
    """Return the colours that the table needs as solid ones, mixed from those of a theme.

    Styles of cells are put over each other without regard to transparency, so that a theme's
    transparent colours cannot be used there.
    """
    try:
        front, back, primary, secondary = (
            Color.parse(variables[name]) for name in ("foreground", "background", "primary", "secondary")
        )
    except ColorParseError:
        return dict(_ANSI_SHADES)
    if front.ansi is not None or back.ansi is not None:
        return dict(_ANSI_SHADES)
    return {
        "cell-dim": front.blend(back, 0.42).hex,
        "cell-dead": front.blend(back, 0.66).hex,
        "cell-trough": front.blend(back, 0.80).hex,
        "frame": front.blend(back, 0.78).hex,
        "row-cursor": primary.blend(back, 0.68).hex,
        "row-cursor-blur": front.blend(back, 0.89).hex,
        "row-hover": front.blend(back, 0.94).hex,
        "row-marked": secondary.blend(back, 0.72).hex,
        "cell-fill": primary.blend(back, 0.55).hex,
    }


_ANSI_SHADES = {
    "cell-dim": "ansi_bright_black",
    "cell-dead": "ansi_bright_black",
    "cell-trough": "ansi_bright_black",
    "frame": "ansi_bright_black",
    "row-cursor": "ansi_blue",
    "row-cursor-blur": "ansi_bright_black",
    "row-hover": "ansi_default",
    "row-marked": "ansi_magenta",
    "cell-fill": "ansi_blue",
}
