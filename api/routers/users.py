"""People and machines: an admin adds them and says what they may do."""

from typing import Annotated

from fastapi import APIRouter

from api.deps import Act, By, Caller, Now, Served
from api.paging import After, Limit, Page, page_of
from api.schemas.examples import answers
from api.schemas.users import PERSON, PasswordLink, User, UserChangeRequest, UserList, UserRequest
from rollout.services.access import users
from rollout.services.access.keys import SIZE, write_token

router = APIRouter(prefix="/v1/users", tags=["users"])
PEOPLE = answers({"items": [PERSON], "next": None})
Admin = Annotated[Caller, By(Act.ADMINISTER)]


@router.get(
    "",
    operation_id="listUsers",
    summary="List users and service accounts",
    response_model=UserList,
    responses=PEOPLE,
)
def list_users(service: Served, who: Admin, after: After = None, limit: Limit = 100) -> Page[User]:
    """Return everybody who ever had a name here, in the order in which they came."""
    found = users.everybody(service.database, who)
    return page_of([User.of(one) for one in found], lambda one: one.name, after, limit)


@router.post(
    "", operation_id="createUser", summary="Create a user or a service account", status_code=201
)
def create_user(asked: UserRequest, service: Served, who: Admin, now: Now) -> User:
    """Give a name to somebody; it is never given again. Machines may be ingest and viewer."""
    added = users.add(
        service.database,
        who,
        asked.name,
        at=now,
        machine=asked.service_account,
        email=asked.email,
        rights=[form.right for form in asked.roles],
    )
    return User.of(added)


@router.patch("/{name}", operation_id="updateUser", summary="Disable a user or change their roles")
def update_user(name: str, asked: UserChangeRequest, service: Served, who: Admin, now: Now) -> User:
    """Do all of it or nothing. Disabling ends keys, sessions, password and rights at once."""
    return User.of(users.amend(service.database, who, name, asked.amendment, at=now))


@router.post(
    "/{name}/link",
    operation_id="createPasswordLink",
    summary="Create a one-time link to set a password",
    status_code=201,
)
def create_password_link(name: str, service: Served, who: Admin, now: Now) -> PasswordLink:
    """Return a token that works once, within a day; give it to nobody else."""
    secret = write_token(service.entropy(SIZE))
    return PasswordLink(
        name=name, token=users.link(service.database, who, name, at=now, secret=secret)
    )
