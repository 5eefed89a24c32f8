"""OpenFGA's HTTP API, as far as this service needs it: ask, write, read, and make a store."""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Final

import httpx

from app.authz.openfga_terms import OpenFGADownError, OpenFGAError, TooDeepError
from app.authz.tuples import CURRENT_TIME, RelationshipTuple, TupleKey, key_json, to_time

PAGE_SIZE: Final = 100
_TOO_DEEP: Final = "authorization_model_resolution_too_complex"
_TOO_MANY_REQUESTS: Final = 429
_SERVER_ERRORS: Final = 500


class CircuitBreaker:
    """After some failures in a row nobody waits for the server any more, until one request has tried it again."""

    def __init__(self, failures: int = 5, pause_seconds: float = 2.0) -> None:
        self._limit = failures
        self._pause = pause_seconds
        self._failures = 0
        self._closed_again_at = 0.0
        self._is_probing = False

    @contextmanager
    def guard(self) -> Iterator[None]:
        """Let a request through and learn from how it ends.

        Raises:
            OpenFGADownError: it is not let through.
        """
        is_probe = self._failures >= self._limit
        if is_probe and (self._is_probing or time.monotonic() < self._closed_again_at):
            raise OpenFGADownError("has not answered for a while")
        self._is_probing = is_probe or self._is_probing
        try:
            yield
        except OpenFGADownError:
            self._failures += 1
            self._closed_again_at = time.monotonic() + self._pause
            raise
        else:
            self._failures = 0
        finally:
            if is_probe:
                self._is_probing = False


class OpenFGAClient:
    """One store of one server. Keeps connections open; safe for any number of tasks."""

    def __init__(
        self, url: str, store_id: str, *, model_id: str | None = None, token: str | None = None, timeout_seconds: float = 1
    ) -> None:
        self.store_id = store_id
        self._model = {"authorization_model_id": model_id} if model_id else {}
        self._timeout_seconds = timeout_seconds
        self._breaker = CircuitBreaker()
        self._http = httpx.AsyncClient(
            base_url=url,
            headers={"Authorization": f"Bearer {token}"} if token else {},
            timeout=timeout_seconds,
            verify=ssl.create_default_context(),  # the machine's certificates, so that a private authority can be trusted
            trust_env=False,  # a question about authorization takes no detour that the environment names
        )

    async def aclose(self) -> None:
        """Close every connection."""
        await self._http.aclose()

    async def allowed(self, user: str, resource: str, relations: Sequence[str], known: Sequence[TupleKey], at: datetime) -> frozenset[str]:
        """Those of at most 50 relations that the user has to the object, with up to 100 tuples that the store need not hold; one call.

        Raises:
            TooDeepError: groups are nested too deep to tell.
            OpenFGADownError: no answer.
            OpenFGAError: the question was refused.
        """
        context = {
            "contextual_tuples": {"tuple_keys": [key_json(key) for key in known]},
            "context": {CURRENT_TIME: to_time(at)},
        }
        checks = [
            {"tuple_key": key_json(TupleKey(user, relation, resource)), "correlation_id": relation, **context} for relation in relations
        ]
        answer = await self._post("batch-check", {"checks": checks, "consistency": "HIGHER_CONSISTENCY", **self._model})
        result: dict[str, Any] = answer["result"]
        faults = [verdict["error"] for verdict in result.values() if "error" in verdict]
        if any(fault.get("input_error") == _TOO_DEEP for fault in faults):
            raise TooDeepError("groups are nested too deep")
        if faults or result.keys() != set(relations):
            raise OpenFGAError(f"could not decide: {faults[:1]}")
        return frozenset(relation for relation, verdict in result.items() if verdict.get("allowed") is True)

    async def write(self, tuples: Sequence[RelationshipTuple]) -> None:
        """Write at most 100 tuples; one that is there already, with the same end, is left.

        Raises:
            OpenFGAError: see ``allowed``. Nothing was written, or it is not known.
        """
        keys = [one.to_json() for one in tuples]
        await self._post("write", {"writes": {"tuple_keys": keys, "on_duplicate": "ignore"}, **self._model})

    async def delete(self, keys: Sequence[TupleKey]) -> None:
        """Delete at most 100 tuples; one that is not there is no fault.

        Raises:
            OpenFGAError: see ``write``.
        """
        await self._post("write", {"deletes": {"tuple_keys": [key_json(key) for key in keys], "on_missing": "ignore"}, **self._model})

    async def read_all(self) -> AsyncIterator[RelationshipTuple]:
        """Every tuple of the store, page by page.

        Raises:
            OpenFGAError: see ``allowed``.
        """
        token = ""
        while True:
            asked = {"page_size": PAGE_SIZE, "consistency": "HIGHER_CONSISTENCY", **({"continuation_token": token} if token else {})}
            page = await self._post("read", asked)
            for one in page.get("tuples", []):
                yield RelationshipTuple.from_json(one["key"])
            token = page.get("continuation_token", "")
            if not token:
                return

    async def check(self) -> None:
        """See whether the server answers and has the model.

        Raises:
            OpenFGAError: it does not, or has not.
        """
        if await self.find_model() is None:
            raise OpenFGAError("the store has no model")

    async def find_model(self) -> dict[str, Any] | None:
        """The model that questions are asked of: the one that was named, else the newest; None when there is none.

        Raises:
            OpenFGAError: see ``allowed``.
        """
        named = self._model.get("authorization_model_id")
        if named is not None:
            found: dict[str, Any] = (await self._send("GET", f"/stores/{self.store_id}/authorization-models/{named}"))[
                "authorization_model"
            ]
            return found
        newest = await self._send("GET", f"/stores/{self.store_id}/authorization-models", params={"page_size": 1})
        return next(iter(newest.get("authorization_models", [])), None)

    async def add_model(self, model: dict[str, Any]) -> str:
        """Write a model, which becomes the newest; returns its id."""
        return str((await self._post("authorization-models", model))["authorization_model_id"])

    async def find_store(self, name: str) -> str | None:
        """The id of the store of that name, the oldest if there are several; None when there is none."""
        token, found = "", []
        while True:
            page = await self._send("GET", "/stores", params={"name": name, "page_size": PAGE_SIZE, "continuation_token": token})
            found += [store for store in page.get("stores", []) if store["name"] == name]
            token = page.get("continuation_token", "")
            if not token:
                return str(min(found, key=lambda store: store["created_at"])["id"]) if found else None

    async def add_store(self, name: str) -> str:
        """Make a store; returns its id."""
        return str((await self._send("POST", "/stores", json={"name": name}))["id"])

    async def _post(self, what: str, body: dict[str, Any]) -> dict[str, Any]:
        return await self._send("POST", f"/stores/{self.store_id}/{what}", json=body)

    async def _send(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        with self._breaker.guard():
            try:
                async with asyncio.timeout(self._timeout_seconds):  # httpx limits each step, not the whole
                    response = await self._http.request(method, path, **options)
                if response.status_code == _TOO_MANY_REQUESTS or response.status_code >= _SERVER_ERRORS:
                    raise OpenFGADownError(f"answers {response.status_code}")
                answer: dict[str, Any] = response.json()
            except (httpx.HTTPError, TimeoutError, ValueError) as error:
                raise OpenFGADownError(f"does not answer: {type(error).__name__}") from None
        if response.is_error:
            raise OpenFGAError(f"refuses: {response.status_code} {answer.get('code')}: {answer.get('message')}")
        return answer
