"""API keys: create, list and revoke them."""

from typing import Annotated

from fastapi import APIRouter, Query, Response

from api.auth import Caller, Permission, RequirePermission, ServiceDependency, WallTime
from api.paging import After, Limit, Page, build_page
from api.schemas.examples import build_responses
from api.schemas.users import KEY, ApiKeyList, ApiKeyMetadata, ApiKeyRequest, CreatedApiKey
from rollout.features.access import keys

router = APIRouter(prefix="/v1/keys", tags=["keys"])
KEYS_RESPONSES = build_responses({"items": [KEY], "next": None})
Anyone = Annotated[Caller, RequirePermission(Permission.IDENTIFY)]
Holder = Annotated[
    str | None, Query(max_length=64, description="account name; default: your own, for admins all")
]


@router.get(
    "",
    operation_id="listKeys",
    summary="List API keys",
    response_model=ApiKeyList,
    responses=KEYS_RESPONSES,
)
def list_keys(
    service: ServiceDependency,
    caller: Anyone,
    holder: Holder = None,
    after: After = None,
    limit: Limit = 100,
) -> Page[ApiKeyMetadata]:
    """Return your API keys, oldest first; admins can list all keys.

    Secrets are never included.
    """
    listed_keys = [
        ApiKeyMetadata.model_validate(key)
        for key in keys.load_keys(service.database, caller, holder)
    ]
    return build_page(listed_keys, lambda key: key.prefix, after, limit)


@router.post("", operation_id="createKey", summary="Create an API key", status_code=201)
def create_key(
    body: ApiKeyRequest, service: ServiceDependency, caller: Anyone, now: WallTime
) -> CreatedApiKey:
    """Return a new API key with its secret.

    The secret is shown only once and cannot be retrieved later. Users create keys for themselves,
    admins for any account.
    """
    created_key = keys.create_key(
        service.database,
        caller,
        body.holder or caller.name,
        random_bytes=service.entropy(keys.KEY_BYTES),
        at=now,
        expires_at=body.expires_at,
    )
    return CreatedApiKey.model_validate(created_key)


@router.delete(
    "/{prefix}",
    operation_id="revokeKey",
    summary="Revoke an API key",
    status_code=204,
    response_class=Response,
)
def revoke_key(prefix: str, service: ServiceDependency, caller: Anyone, now: WallTime) -> None:
    """Revoke an API key.

    Every replica rejects the key within one second. It is safe to retry.
    """
    keys.revoke_key(service.database, caller, prefix, at=now)
