"""The ASGI application. The service's routes (`/v1`, model.md §9) come with the service."""

from fastapi import FastAPI

app = FastAPI(
    title="rollout",
    description="Who decides this case, right now. The service is not built yet: use replay.",
)


@app.get("/health/live", summary="Is the process alive?")
def live() -> dict[str, str]:
    """Answer while the process runs."""
    return {"live": "yes"}
