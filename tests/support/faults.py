"""Makes the n-th call of something fail, once."""

import inspect
from collections.abc import Callable
from typing import Any, Literal

import pytest


class Fault:
    """While the monkeypatch holds, the ``nth`` call of ``owner.name`` raises ``error``: before it does its work, or after.

    ``of`` counts only calls whose arguments it accepts.
    """

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        owner: Any,
        name: str,
        *,
        nth: int,
        error: Exception,
        when: Literal["before", "after"] = "before",
        of: Callable[..., bool] = lambda *_args: True,
    ) -> None:
        self.calls = 0
        self._nth = nth
        original = getattr(owner, name)

        def is_due(args: tuple[Any, ...]) -> bool:
            self.calls += of(*args)
            return self.calls == nth and of(*args)

        if inspect.iscoroutinefunction(original):

            async def faulty_async(*args: Any, **options: Any) -> Any:
                strikes = is_due(args)
                if strikes and when == "before":
                    raise error
                result = await original(*args, **options)
                if strikes:
                    raise error
                return result

            monkeypatch.setattr(owner, name, faulty_async)
            return

        def faulty(*args: Any, **options: Any) -> Any:
            strikes = is_due(args)
            if strikes and when == "before":
                raise error
            result = original(*args, **options)
            if strikes:
                raise error
            return result

        monkeypatch.setattr(owner, name, faulty)

    @property
    def has_struck(self) -> bool:
        """Whether there were that many calls."""
        return self.calls >= self._nth
