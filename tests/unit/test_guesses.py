"""The buckets that slow guessing down, with a clock of the test's own."""

import asyncio
import logging
from dataclasses import dataclass, field

import pytest

from app.authn.guesses import MAX_ENTRIES, OF_ADDRESS, OF_PAIR, PROVED_SECONDS, GuessLimiter
from app.core.actors import Actor, ActorType, Identity
from app.core.errors import TooManyAttemptsError, UnauthenticatedError
from app.core.keys import KeyToken, new_token
from app.db.wanted import Wanted

pytestmark = pytest.mark.anyio

HERE, ELSEWHERE = "192.0.2.1", "192.0.2.2"
ANYBODY = Identity(Actor(ActorType.API_KEY, "key"), "api_key")


@dataclass
class Known:
    """Verifies against a set of right tokens, as slowly as a database may answer, and remembers what it was asked."""

    right: set[str] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)
    is_down: bool = False

    async def verify(self, token: str, address: str | None, wanted: Wanted | None = None) -> Identity:  # noqa: ARG002 - the port's
        self.asked.append(token)
        await asyncio.sleep(0)
        if self.is_down:
            raise ConnectionError
        if token not in self.right:
            raise UnauthenticatedError("no")
        return ANYBODY


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


class World:
    """A limiter, and short words for what happens to a token shown to it."""

    def __init__(self) -> None:
        self.known, self.clock = Known(), Clock()
        self.limiter = GuessLimiter(self.known, self.clock)

    async def show(self, token: str, address: str | None = HERE) -> str:
        try:
            await self.limiter.verify(token, address)
        except TooManyAttemptsError as error:
            return f"wait {error.retry_after_seconds}"
        except UnauthenticatedError:
            return "wrong"
        return "right"

    async def show_many(self, tokens: list[str], address: str | None = HERE) -> list[str]:
        return [await self.show(token, address) for token in tokens]

    async def at_once(self, tokens: list[str], address: str | None = HERE) -> list[str]:
        return list(await asyncio.gather(*(self.show(token, address) for token in tokens)))

    def issue(self, prefix: str | None = None) -> str:
        """A right token."""
        (token,) = guesses(1, prefix)
        self.known.right.add(token)
        return token


@pytest.fixture
def world() -> World:
    return World()


def guesses(number: int, prefix: str | None = None) -> list[str]:
    """Well-formed tokens, each for a prefix of its own when none is given."""
    made = [new_token() for _ in range(number)]
    return [KeyToken(prefix or token.prefix, token.secret).written for token in made]


async def drain(world: World, address: str | None = HERE) -> None:
    """Fail until the address has nothing left."""
    assert set(await world.show_many(guesses(OF_ADDRESS.burst), address)) == {"wrong"}
    assert await world.show(guesses(1)[0], address) == "wait 2"


async def test_five_wrong_secrets_of_one_key_then_one_each_ten_seconds(world: World) -> None:
    assert await world.show_many(guesses(7, "aaaabbbbcccc")) == ["wrong"] * 5 + ["wait 10"] * 2
    assert len(world.known.asked) == 5, "what is refused is not looked at"
    world.clock.now += 3.5
    assert await world.show_many(guesses(1, "aaaabbbbcccc")) == ["wait 7"]
    world.clock.now += 6.5
    assert await world.show_many(guesses(3, "aaaabbbbcccc")) == ["wrong", "wait 10", "wait 10"]
    world.clock.now += 3600
    assert await world.show_many(guesses(6, "aaaabbbbcccc")) == ["wrong"] * 5 + ["wait 10"]


async def test_thirty_wrong_tokens_of_one_address_then_one_each_two_seconds(world: World) -> None:
    for malformed in (False, True):
        tokens = [f"x{number}" for number in range(33)] if malformed else guesses(33)
        assert await world.show_many(tokens) == ["wrong"] * 30 + ["wait 2"] * 3
        world.clock.now += 2
        assert await world.show_many(tokens[:2]) == ["wrong", "wait 2"]
        world.clock.now += OF_ADDRESS.burst * OF_ADDRESS.seconds


async def test_nobody_is_locked_out_from_another_address(world: World) -> None:
    owner = world.issue("aaaabbbbcccc")
    await world.show_many(guesses(7, "aaaabbbbcccc"))
    await drain(world, "198.51.100.7")
    assert await world.show(owner) == "wait 10"
    assert await world.show(owner, ELSEWHERE) == "right"


async def test_right_tokens_take_nothing(world: World) -> None:
    for _ in range(100):
        assert await world.show(world.issue("aaaabbbbcccc")) == "right"
    assert await world.show_many(guesses(6, "aaaabbbbcccc")) == ["wrong"] * 5 + ["wait 10"]


async def test_a_token_that_proved_right_here_works_beside_a_guesser(world: World) -> None:
    proved, unproved, proved_elsewhere = world.issue("aaaabbbbcccc"), world.issue(), world.issue()
    assert await world.show(proved) == "right"
    assert await world.show(proved_elsewhere, ELSEWHERE) == "right"
    await drain(world)
    await world.show_many(guesses(6, "aaaabbbbcccc"))
    assert await world.show(proved) == "right"
    assert await world.show_many([unproved, proved_elsewhere]) == ["wait 2"] * 2
    assert await world.show(proved, ELSEWHERE) == "right"


async def test_another_secret_of_a_proved_key_is_a_guess(world: World) -> None:
    assert await world.show(world.issue("aaaabbbbcccc")) == "right"
    assert await world.show_many(guesses(6, "aaaabbbbcccc")) == ["wrong"] * 5 + ["wait 10"]


async def test_the_proof_lasts_ten_minutes_from_its_last_use(world: World) -> None:
    proved = world.issue()
    assert await world.show(proved) == "right"
    world.clock.now += PROVED_SECONDS - 1
    assert await world.show(proved) == "right"
    world.clock.now += PROVED_SECONDS - 1
    await drain(world)
    assert await world.show(proved) == "right"
    world.clock.now += PROVED_SECONDS
    await drain(world)
    assert await world.show(proved) == "wait 2"


async def test_a_proved_token_that_was_revoked_is_slowed_like_any_other(world: World) -> None:
    proved = world.issue("aaaabbbbcccc")
    assert await world.show(proved) == "right"
    world.known.right.clear()
    assert await world.show_many([proved] * 8) == ["wrong"] * 6 + ["wait 10"] * 2


async def test_attempts_at_once_are_no_way_around(world: World) -> None:
    assert sorted(await world.at_once(guesses(200, "aaaabbbbcccc"))) == ["wait 10"] * 195 + ["wrong"] * 5
    found = await world.at_once(guesses(200), ELSEWHERE)
    assert (found.count("wrong"), found.count("wait 2")) == (30, 170)
    assert len(world.known.asked) == 35


async def test_right_tokens_at_once_all_work(world: World) -> None:
    assert set(await world.at_once([world.issue("aaaabbbbcccc")] * 200)) == {"right"}
    assert set(await world.at_once([world.issue() for _ in range(200)], ELSEWHERE)) == {"right"}
    mixed = guesses(4, "ddddeeeeffff") + [world.issue("ddddeeeeffff") for _ in range(50)]
    assert sorted(await world.at_once(mixed)) == ["right"] * 50 + ["wrong"] * 4


async def test_what_could_not_be_looked_up_takes_nothing(world: World) -> None:
    world.known.is_down = True
    for token in guesses(100, "aaaabbbbcccc"):
        with pytest.raises(ConnectionError):
            await world.limiter.verify(token, HERE)
    world.known.is_down = False
    assert await world.show_many(guesses(6, "aaaabbbbcccc")) == ["wrong"] * 5 + ["wait 10"]


async def test_a_caller_who_goes_away_lets_those_behind_it_pass(world: World) -> None:
    trying = [asyncio.create_task(world.show(token)) for token in guesses(20, "aaaabbbbcccc")]
    await asyncio.sleep(0)
    for task in trying:
        task.cancel()
    await asyncio.gather(*trying, return_exceptions=True)
    async with asyncio.timeout(60):
        assert await world.show_many(guesses(6, "aaaabbbbcccc")) == ["wrong"] * 5 + ["wait 10"]


@pytest.mark.parametrize(
    ("address", "neighbour", "stranger"),
    [
        ("192.0.2.1", "192.0.2.1", "192.0.2.3"),
        ("2001:db8::1", "2001:db8::ffff:1:2:3", "2001:db8:0:1::1"),
        ("2001:DB8:0:0::1", "2001:db8::2", "2001:db9::1"),
        ("192.0.2.1", "::ffff:192.0.2.1", "::ffff:192.0.2.3"),
        ("fe80::1%eth0", "fe80::2%eth1", "fe81::1"),
        (None, None, "127.0.0.1"),
        ("testclient", "testclient", "a:b"),
    ],
)
async def test_a_host_is_an_ipv4_address_or_an_ipv6_64(world: World, address: str | None, neighbour: str | None, stranger: str) -> None:
    await drain(world, address)
    assert await world.show(world.issue(), neighbour) == "wait 2"
    assert await world.show(world.issue(), stranger) == "right"


async def test_memory_is_bounded_whoever_calls(world: World) -> None:
    for number in range(100_000):
        await world.show(f"sbk_{number:012}." + "A" * 43, f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
    limiter = world.limiter
    assert len(limiter._addresses) == len(limiter._pairs) == MAX_ENTRIES
    for _ in range(MAX_ENTRIES + 10):
        assert await world.show(world.issue(), HERE) == "right"
    assert len(limiter._proved) == len(limiter._pairs) == MAX_ENTRIES


async def test_who_is_still_guessing_is_not_the_one_forgotten(world: World) -> None:
    await drain(world)
    for number in range(3 * MAX_ENTRIES):
        await world.show("x", f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
        if number % 1000 == 0:
            assert await world.show("x") == "wait 2"


async def test_the_log_tells_once_who_is_slowed_and_shows_no_token(world: World, caplog: pytest.LogCaptureFixture) -> None:
    await world.show_many(guesses(OF_ADDRESS.burst + 5))
    for _ in range(20):
        world.clock.now += OF_ADDRESS.seconds
        assert await world.show_many(guesses(2)) == ["wrong", "wait 2"]
    (line,) = [vars(record) for record in caplog.records if record.levelno >= logging.WARNING]
    assert (line["address"], line["failed"]) == (HERE, OF_ADDRESS.burst)
    assert "sbk_" not in str(line)
    world.clock.now += 3600
    await world.show_many(guesses(OF_PAIR.burst, "aaaabbbbcccc"))
    assert [vars(record)["failed"] for record in caplog.records] == [OF_ADDRESS.burst, OF_PAIR.burst]
