"""Who asks: what the service takes them for."""

from typing import Annotated

from fastapi import APIRouter, Response

from api.deps import Act, By, Caller, Now, Served
from api.schemas.people import MeOut, PasswordIn, RightForm

router = APIRouter(prefix="/v1/me", tags=["people"])
Anyone = Annotated[Caller, By(Act.BE)]


@router.get("", summary="Who am I, and what may I do?")
def me(who: Anyone) -> MeOut:
    """Return the caller's name and rights, as of a revision of the house chain."""
    rights = [RightForm.model_validate(right) for right in who.rights]
    return MeOut(name=who.name, machine=who.machine, rights=rights, house=who.house)


@router.put("/password", summary="Set my password", status_code=204, response_class=Response)
def password(asked: PasswordIn, service: Served, who: Anyone, now: Now) -> None:
    """Set one's own password; every session of one's own ends, this one too."""
    service.signing.set_password(who, who.name, asked.password, at=now, current=asked.current)
