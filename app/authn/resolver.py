"""Who is calling: bearer credentials first, then the actor header of a trusted proxy, then the anonymous actor; and for whom."""

import logging
from dataclasses import replace
from importlib import import_module
from typing import Final, Protocol

from app.authn.proxies import Credentials, ProxyTrust
from app.core.actors import Actor, ActorType, Identity, InvalidActorError
from app.core.errors import BadRequestError, ForbiddenError, MalformedCredentialError, TooManyAttemptsError, UnauthenticatedError
from app.db.wanted import Wanted
from app.observability.metrics import INVALID, MALFORMED, SLOWED

_log = logging.getLogger(__name__)

ON_BEHALF_OF_HEADER: Final = "X-SaaSBase-On-Behalf-Of"
REFUSED: Final = "The Authorization header holds no valid credential."
_PRINCIPALS: Final = frozenset({ActorType.USER, ActorType.SERVICE, ActorType.AGENT})


class MayNotActForOthersError(ForbiddenError):
    """The caller is known, and wants to act for another without the right. ``wanted`` is for the log: nothing may be done as it."""

    code = "may_not_act_for_others"

    def __init__(self, wanted: Identity) -> None:
        super().__init__(f"{wanted.actor.subject} may not act for others.")
        self.wanted = wanted


class ActorResolver(Protocol):
    """Finds the identity of a caller."""

    async def resolve(self, credentials: Credentials) -> Identity:
        """The identity.

        Raises:
            UnauthenticatedError: a credential was shown and is not valid, or none was shown and there is no anonymous actor.
            TooManyAttemptsError: a credential was shown and not looked at, because too many before it were not valid.
            BadRequestError: a header that names an actor cannot be read.
            ForbiddenError: the caller may not act for others, and wants to.
            UnavailableError: what proves the credential cannot be had at the moment.
        """


def load_resolver(name: str) -> ActorResolver:
    """A resolver by ``module:name``: a class, or something else that is called without arguments and gives one.

    Raises:
        ImportError: there is no such module, nothing of that name in it, or it gives no resolver.
    """
    module, _, attribute = name.partition(":")
    make = getattr(import_module(module), attribute, None)
    found: ActorResolver | None = make() if callable(make) else None
    if found is None or not callable(getattr(found, "resolve", None)):
        raise ImportError(f"{name} makes nothing that has a method resolve")
    return found


class BearerVerifier(Protocol):
    """Turns a bearer token into an identity."""

    async def verify(self, token: str, address: str | None, wanted: Wanted | None = None) -> Identity:
        """The identity the token proves, for a caller at that address; what the request wants may be found by the way.

        Raises:
            UnauthenticatedError: it proves nothing.
            TooManyAttemptsError: it was not looked at, because too many before it proved nothing.
            UnavailableError: what would prove it cannot be had at the moment.
        """


class ChainedActorResolver:
    """A bearer credential, else the actor header, else the anonymous actor."""

    def __init__(self, header: str, trust: ProxyTrust, anonymous: Actor | None, bearer: BearerVerifier) -> None:
        self._bearer = bearer
        self._header = header
        self._trust = trust
        self._anonymous = Identity(anonymous, "anonymous") if anonymous else None
        self._has_warned = False

    async def resolve(self, credentials: Credentials) -> Identity:
        """See ``ActorResolver.resolve``."""
        shown = credentials.values_of("Authorization")
        identity = await self._of_bearer(shown, credentials) if shown else self._of_header(credentials)
        sent = {ON_BEHALF_OF_HEADER: credentials.values_of(ON_BEHALF_OF_HEADER)}
        if shown and identity.may_act_for_others and identity.on_behalf_of is None:
            sent[self._header] = credentials.values_of(self._header)
        named = {_read(header, values) for header, values in sent.items() if values}
        if len(named) > 1:
            raise BadRequestError(f"{' and '.join(sent)} name two whom the caller would act for.", code="ambiguous_actor")
        return _acting_for(identity, named.pop()) if named else identity

    async def _of_bearer(self, shown: list[bytes], credentials: Credentials) -> Identity:
        """A credential that is not valid never falls through to a weaker proof."""
        try:
            address = self._trust.client_of(credentials.peer, credentials.head.joined(b"x-forwarded-for"))
            return await self._bearer.verify(_bearer_of(shown), address, credentials.wanted)
        except TooManyAttemptsError:
            SLOWED.inc()
            raise
        except UnauthenticatedError as error:
            (MALFORMED if isinstance(error, MalformedCredentialError) else INVALID).inc()
            raise

    def _of_header(self, credentials: Credentials) -> Identity:
        named = credentials.values_of(self._header)
        if any(value.strip() for value in named) and self._is_believed(credentials):
            return Identity(_read(self._header, named), "header", may_act_for_others=True)
        if self._anonymous is None:
            raise UnauthenticatedError("This service needs to know who is calling.")
        return self._anonymous

    def _is_believed(self, credentials: Credentials) -> bool:
        if self._trust.believes(credentials):
            return True
        if not self._has_warned:
            self._has_warned = True
            _log.warning("%s from %s ignored: not a trusted proxy (SAASBASE_ACTOR__TRUSTED_PROXIES)", self._header, credentials.peer)
        return False


def _acting_for(identity: Identity, principal: Actor) -> Identity:
    if identity.is_anonymous:
        raise UnauthenticatedError("Acting for others needs an identity.")
    if not identity.may_act_for_others:
        raise MayNotActForOthersError(replace(identity, on_behalf_of=Identity(principal, identity.method)))
    if identity.on_behalf_of is not None:
        raise BadRequestError("The token says already whom the caller acts for.", code="ambiguous_actor")
    if principal.type not in _PRINCIPALS:
        raise BadRequestError("One acts for a user, a service or an agent.", code="invalid_actor")
    return replace(identity, on_behalf_of=Identity(principal, identity.method))


def _read(header: str, values: list[bytes]) -> Actor:
    if len(values) > 1:
        raise BadRequestError(f"{header} is given more than once.", code="ambiguous_actor")
    try:
        actor = Actor.from_subject(values[0].decode("utf-8"))
    except UnicodeDecodeError:
        raise BadRequestError(f"{header} is not UTF-8.", code="invalid_actor") from None
    except InvalidActorError as error:
        raise BadRequestError(f"{header}: {error}.", code="invalid_actor") from None
    if actor.type is ActorType.API_KEY:
        raise UnauthenticatedError("An API key proves itself with its secret, as a Bearer token.")
    return actor


def _bearer_of(values: list[bytes]) -> str:
    scheme, _, token = values[0].decode("latin-1").partition(" ")
    if len(values) > 1 or scheme.lower() != "bearer" or not token.strip():
        raise MalformedCredentialError(REFUSED)
    return token.strip()
