"""What is found below /.well-known: which parts of the AuthZEN Authorization API 1.0 there are, and where."""

from typing import Final

from fastapi import APIRouter, Request
from pydantic import BaseModel

from app.http.runtime import runtime_of

_SCHEMES: Final = frozenset({"http", "https"})

router = APIRouter(tags=["authzen"])


class AccessConfiguration(BaseModel):
    """Metadata of the policy decision point."""

    policy_decision_point: str
    access_evaluation_endpoint: str
    access_evaluations_endpoint: str
    search_subject_endpoint: str
    search_resource_endpoint: str
    search_action_endpoint: str


@router.get("/.well-known/authzen-configuration", operation_id="read_access_configuration", summary="Where the AuthZEN API is")
async def read_access_configuration(request: Request) -> AccessConfiguration:
    """The addresses of the AuthZEN API as the caller reaches them. A trusted proxy tells the scheme in `X-Forwarded-Proto`."""
    runtime = runtime_of(request)
    base = _base_of(request)
    access = f"{base}{runtime.base_path}/access/v1"
    return AccessConfiguration(
        policy_decision_point=base,
        access_evaluation_endpoint=f"{access}/evaluation",
        access_evaluations_endpoint=f"{access}/evaluations",
        search_subject_endpoint=f"{access}/search/subject",
        search_resource_endpoint=f"{access}/search/resource",
        search_action_endpoint=f"{access}/search/action",
    )


def _base_of(request: Request) -> str:
    """Scheme, host and mount point, without a slash at the end."""
    url = request.base_url
    forwarded = request.headers.get("x-forwarded-proto", "").strip().lower()
    if forwarded in _SCHEMES and runtime_of(request).trust.covers(request.client.host if request.client else None):
        url = url.replace(scheme=forwarded)
    return str(url).rstrip("/")
