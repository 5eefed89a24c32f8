"""How the values of settings are read, and what is wrong with them in words that never repeat them."""

import json
import re
from datetime import timedelta
from ipaddress import IPv4Network, IPv6Network
from typing import Annotated, Any, Final

from pydantic import (
    AfterValidator,
    BeforeValidator,
    SecretStr,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)
from pydantic_settings import NoDecode

from app.core.actors import Actor, InvalidActorError
from app.core.addresses import plain_network
from app.core.issuers import Issuer, require_distinct

MAX_DAYS: Final = 36500

_DAY: Final = timedelta(days=1)
_ORIGIN = re.compile(r"https?://[a-z0-9.-]+(:\d{1,5})?|https?://\[[0-9a-f:]+\](:\d{1,5})?")
_BASE_PATH = re.compile(r"(?:/[A-Za-z0-9._~-]+)*")


def read_list(value: Any) -> Any:
    """The parts of a text with commas between."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def read_networks(values: list[str]) -> tuple[IPv4Network | IPv6Network, ...]:
    """Addresses and networks in CIDR notation."""
    try:
        return tuple(plain_network(value) for value in values)
    except ValueError:  # its text repeats the value
        raise ValueError("must be addresses or networks with commas between, such as 127.0.0.1/32,10.0.0.0/8") from None


def read_origins(values: tuple[str, ...]) -> tuple[str, ...]:
    """Origins as browsers write them, or a star for all."""
    if any(value != "*" and not _ORIGIN.fullmatch(value) for value in values):
        raise ValueError("must be * or origins with commas between, such as https://app.example.com,http://localhost:3000")
    return values


def read_base_path(value: str) -> str:
    """A path with one slash before it and none behind, or nothing."""
    path = "/" + value.strip("/")
    path = "" if path == "/" else path
    if not _BASE_PATH.fullmatch(path):
        raise ValueError("must be a path such as /api, of letters, digits and . _ ~ -")
    return path


def read_prefix(value: str) -> str:
    """The folder in a bucket that everything lies below."""
    path = value.strip("/")
    if not re.fullmatch(r"[A-Za-z0-9!_.*'()/-]{0,400}", path):
        raise ValueError("must be a folder such as documents, of letters, digits and ! _ . * ' ( ) / -")
    return f"{path}/" if path else ""


def read_days(value: Any, read: ValidatorFunctionWrapHandler) -> timedelta | None:
    """A duration of whole days, as ISO 8601 or people write it; nothing means none. A bare number would say no unit."""
    if value is None or value == "":
        return None
    try:
        duration = read(value)
    except ValidationError:
        duration = timedelta()
    if duration % _DAY or not _DAY <= duration <= MAX_DAYS * _DAY:
        raise ValueError(f"must be whole days from 1 to {MAX_DAYS}, written as P30D or 30d")
    return duration  # type: ignore[no-any-return] # of the annotated type


def read_actor(value: str) -> str:
    """The written form of an actor, or nothing."""
    if value.strip():
        try:
            Actor.from_subject(value)
        except InvalidActorError as error:
            raise ValueError(f"names no actor: {error}") from None
    return value


def read_issuers(value: Any) -> Any:
    """Read the JSON list; an audience may be one text instead of a list."""
    if isinstance(value, str):
        try:
            value = json.loads(value) if value.strip() else []
        except (ValueError, RecursionError):  # its text repeats the value
            value = None
    if not isinstance(value, list | tuple) or not all(isinstance(issuer, dict | Issuer) for issuer in value):
        raise ValueError("must be a JSON list of objects")
    return [
        {**issuer, "audience": [issuer["audience"]]} if isinstance(issuer, dict) and isinstance(issuer.get("audience"), str) else issuer
        for issuer in value
    ]


def require_distinct_issuers(issuers: tuple[Issuer, ...]) -> tuple[Issuer, ...]:
    """Issuers that cannot be mistaken for one another."""
    require_distinct(issuers)
    return issuers


Origins = Annotated[tuple[str, ...], NoDecode, BeforeValidator(read_list), AfterValidator(read_origins)]
Days = Annotated[timedelta | None, WrapValidator(read_days)]
OptionalSecret = Annotated[SecretStr | None, BeforeValidator(lambda value: value or None)]
Networks = Annotated[tuple[IPv4Network | IPv6Network, ...], NoDecode, BeforeValidator(lambda v: read_networks(read_list(v)))]
