"""The rules by which axe looks at a page."""

# Every rule of WCAG 2.0 to 2.2 at levels A and AA, target sizes too, which axe leaves out by itself, and its best practice.
TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
RULES = {"runOnly": TAGS, "rules": {"target-size": {"enabled": True}}}
