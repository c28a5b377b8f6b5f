"""Keys: shown once when they are made, listed without their secret, revoked at once."""

from typing import Annotated

from fastapi import APIRouter, Query, Response

from api.deps import Act, By, Caller, Now, Served
from api.paging import After, Limit, Page, page_of
from api.schemas.examples import answers
from api.schemas.users import KEY, ApiKeyList, ApiKeyMetadata, ApiKeyRequest, CreatedApiKey
from rollout.services.access import keys

router = APIRouter(prefix="/v1/keys", tags=["keys"])
KEYS = answers({"items": [KEY], "next": None})
Anyone = Annotated[Caller, By(Act.BE)]
Holder = Annotated[
    str | None, Query(max_length=64, description="by default oneself; of an admin, all")
]


@router.get(
    "", operation_id="listKeys", summary="List API keys", response_model=ApiKeyList, responses=KEYS
)
def list_keys(
    service: Served, who: Anyone, holder: Holder = None, after: After = None, limit: Limit = 100
) -> Page[ApiKeyMetadata]:
    """Return one's own keys, or as an admin anybody's, oldest first."""
    found = [
        ApiKeyMetadata.model_validate(key) for key in keys.keys_of(service.database, who, holder)
    ]
    return page_of(found, lambda key: key.prefix, after, limit)


@router.post("", operation_id="createKey", summary="Create an API key", status_code=201)
def create_key(asked: ApiKeyRequest, service: Served, who: Anyone, now: Now) -> CreatedApiKey:
    """Return the key, this once. People make their own, an admin anybody's."""
    made = keys.make(
        service.database,
        who,
        asked.holder or who.name,
        chance=service.entropy(keys.CHANCE),
        at=now,
        expires_at=asked.expires_at,
    )
    return CreatedApiKey.of(made)


@router.delete(
    "/{prefix}",
    operation_id="revokeKey",
    summary="Revoke an API key",
    status_code=204,
    response_class=Response,
)
def revoke_key(prefix: str, service: Served, who: Anyone, now: Now) -> None:
    """End a key; within a second it opens nothing on any replica. Again is no error."""
    keys.revoke(service.database, who, prefix, at=now)
