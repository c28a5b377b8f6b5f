"""An instant of today to the second, where seconds count: the site's clock, then the viewer's."""

from datetime import datetime
from typing import Final
from zoneinfo import ZoneInfo

from markupsafe import Markup

from api.console.visitor import Visitor

CLOCK: Final = "%H:%M:%S %Z"


def moment(at: datetime, zone: str, visitor: Visitor) -> Markup:
    """Show the clock time of an instant, without its day."""
    here, yours = at.astimezone(ZoneInfo(zone)), at.astimezone(ZoneInfo(visitor.zone))
    made = Markup('<time datetime="{}">{}</time>').format(here.isoformat(), f"{here:{CLOCK}}")
    if yours.utcoffset() == here.utcoffset():
        return made
    return made + Markup(' <span class="soft nowrap">({} for you)</span>').format(
        f"{yours:{CLOCK}}"
    )
