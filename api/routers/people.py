"""People and machines: an admin adds them and says what they may do."""

from typing import Annotated

from fastapi import APIRouter

from api.deps import Act, By, Caller, Now, Served
from api.paging import After, Limit, Page, page_of
from api.schemas.examples import answers
from api.schemas.people import PERSON, LinkOut, PersonChange, PersonIn, PersonOut
from rollout.services import people
from rollout.services.tokens import SIZE, write_token

router = APIRouter(prefix="/v1/people", tags=["people"])
PEOPLE = answers({"items": [PERSON], "next": None})
Admin = Annotated[Caller, By(Act.ADMINISTER)]


@router.get("", summary="List people and machines", responses=PEOPLE)
def everybody(
    service: Served, who: Admin, after: After = None, limit: Limit = 100
) -> Page[PersonOut]:
    """Return everybody who ever had a name here, in the order in which they came."""
    found = people.everybody(service.database, who)
    return page_of([PersonOut.of(one) for one in found], lambda one: one.name, after, limit)


@router.post("", summary="Add somebody, or a machine", status_code=201)
def add(asked: PersonIn, service: Served, who: Admin, now: Now) -> PersonOut:
    """Give a name to somebody; it is never given again. Machines may be ingest and viewer."""
    added = people.add(
        service.database,
        who,
        asked.name,
        at=now,
        machine=asked.machine,
        email=asked.email,
        rights=[form.right for form in asked.rights],
    )
    return PersonOut.of(added)


@router.patch("/{name}", summary="Disable somebody, or change what they may do")
def change(name: str, asked: PersonChange, service: Served, who: Admin, now: Now) -> PersonOut:
    """Do all of it or nothing. Disabling ends keys, sessions, password and rights at once."""
    return PersonOut.of(people.amend(service.database, who, name, asked.amendment, at=now))


@router.post("/{name}/link", summary="Make a link by which they set a password", status_code=201)
def link(name: str, service: Served, who: Admin, now: Now) -> LinkOut:
    """Return a token that works once, within a day; give it to nobody else."""
    secret = write_token(service.entropy(SIZE))
    return LinkOut(name=name, token=people.link(service.database, who, name, at=now, secret=secret))
