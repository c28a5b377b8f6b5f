"""The list of divergences as a page holds it: its rows, and the fields of its form."""

import re

HERE = "/rollouts/bears/divergences"


def rows(page):
    """Return the keys of the list in its order."""
    return re.findall(r'scope="row"><a href="/console/rollouts/bears/cases/([^"]+)"', page)


def row_of(page, key):
    """Return the number of a case's row in the form."""
    return rows(page).index(key)


def fields(page, **chosen):
    """Return the fields of the form with choices for rows: `missed=("relabel", "none", "why")`."""
    hidden = re.findall(
        r'<input type="hidden" name="(case-\d+|version|lever)" value="([^"]*)">', page
    )
    found = dict(hidden)
    for key, (choice, label, reason) in chosen.items():
        n = row_of(page, key.replace("_", "-"))
        found |= {f"choice-{n}": choice, f"label-{n}": label, f"reason-{n}": reason}
    return found
