"""Token buckets, with a clock of the test's own."""

from dataclasses import dataclass

import pytest

from app.core.addresses import origin_of
from app.limits.buckets import LocalLimiter, Standing

pytestmark = pytest.mark.anyio


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


async def test_a_bucket_empties_and_fills_steadily() -> None:
    clock = Clock()
    limiter = LocalLimiter(clock)
    assert [(await limiter.take("a", 6)).remaining for _ in range(6)] == [5, 4, 3, 2, 1, 0]
    assert await limiter.take("a", 6) == Standing(6, 0, 60, 10)
    clock.now += 9.5
    assert (await limiter.take("a", 6)).seconds_to_wait == 1
    clock.now += 0.5
    assert await limiter.take("a", 6) == Standing(6, 0, 60, 0)
    assert (await limiter.take("a", 6)).seconds_to_wait == 10
    clock.now += 3600
    assert await limiter.take("a", 6) == Standing(6, 5, 10, 0)


async def test_whoever_waits_as_long_as_he_is_told_is_served() -> None:
    clock = Clock()
    limiter = LocalLimiter(clock)
    for quota in (1, 7, 60, 977, 100_000):
        caller = str(quota)
        while not (told := await limiter.take(caller, quota)).seconds_to_wait:
            pass
        clock.now += told.seconds_to_wait
        assert not (await limiter.take(caller, quota)).seconds_to_wait


async def test_a_minute_gives_no_more_than_its_quota_after_the_first() -> None:
    clock = Clock()
    limiter = LocalLimiter(clock)
    served = 0
    for _ in range(6000):
        served += not (await limiter.take("a", 100)).seconds_to_wait
        clock.now += 0.02
    assert 298 <= served <= 300, "the bucket, and two minutes"


async def test_memory_is_bounded_and_who_was_seen_last_stays() -> None:
    limiter = LocalLimiter(Clock(), max_callers=10)
    for number in range(1000):
        await limiter.take(f"peer:{number}", 5)
        standing = await limiter.take("busy", 5)
    assert len(limiter._buckets) == 10
    assert standing.seconds_to_wait


@pytest.mark.parametrize(
    ("address", "origin"),
    [
        (None, "no address"),
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("not:an:address", "not:an:address"),
    ],
)
def test_a_caller_is_an_address_or_a_network(address: str | None, origin: str) -> None:
    assert origin_of(address) == origin
