"""Frames the pictures of docs/examples: one set of colours for light pages, one for dark ones.

A picture brings its own ground, so that its text is readable wherever it is shown. Which set holds
follows from the reader's preference, as on the site (zensical.toml).
"""

LIGHT = {
    "canvas": "#fff",
    "text": "#24292f",
    "faint": "#57606a",
    "grid": "#d8dee4",
    "limit": "#cf222e",
    "warning": "#a40e26",
    "interval": "#9ecae1",
    "biased": "#57606a",
    "unbiased": "#08519c",
    "stages": ("#d8dee4", "#9ecae1", "#4292c6", "#08519c"),
    "on_stages": ("#000", "#000", "#000", "#fff"),
}
DARK = {
    "canvas": "#1e2129",
    "text": "#e6edf3",
    "faint": "#9ea7b3",
    "grid": "#3d444d",
    "limit": "#f85149",
    "warning": "#ff9b94",
    "interval": "#1f5a8a",
    "biased": "#9ea7b3",
    "unbiased": "#9ecae1",
    "stages": ("#3d444d", "#1f5a8a", "#4292c6", "#c6dbef"),
    "on_stages": ("#fff", "#fff", "#000", "#000"),
}


def frame_picture(label, width, height, parts):
    """Return an SVG with the colours of light and dark pages."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img"'
        f' aria-label="{label}">\n'
        f"<style>\nsvg {{ font: 12px system-ui, sans-serif }}\n{_write_rules(LIGHT)}\n"
        f"@media (prefers-color-scheme: dark) {{\n{_write_rules(DARK)}\n}}\n</style>\n"
        f'<rect width="{width}" height="{height}" class="canvas"/>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def _write_rules(colours):
    """Return the style rules of one set of colours."""
    filled = ("canvas", "faint", "warning", "biased", "unbiased")
    rules = {"text": f"fill: {colours['text']}"}
    rules |= {f".{name}": f"fill: {colours[name]}" for name in filled}
    rules |= {f".stage-{n}": f"fill: {colour}" for n, colour in enumerate(colours["stages"])}
    rules |= {f".on-{n}": f"fill: {colour}" for n, colour in enumerate(colours["on_stages"])}
    for name, width in (("grid", 1), ("limit", 1.5), ("interval", 6)):
        rules[f".{name}"] = f"fill: none; stroke: {colours[name]}; stroke-width: {width}"
    for name in ("biased", "unbiased"):
        rules[f".{name}.curve"] = f"fill: none; stroke: {colours[name]}; stroke-width: 2"
    return "\n".join(f"{selector} {{ {rule} }}" for selector, rule in rules.items())
