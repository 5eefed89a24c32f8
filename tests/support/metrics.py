"""What /metrics says, as numbers by the name and labels of each sample."""

from collections.abc import Mapping

import httpx

from app.observability.metrics import CONTENT_TYPE

Samples = dict[str, float]


def read_samples(response: httpx.Response) -> Samples:
    """Every sample of an answer of /metrics, after checking that it is one."""
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == CONTENT_TYPE
    lines = [line.rpartition(" ") for line in response.text.splitlines() if not line.startswith("#")]
    samples = {name: float(value) for name, _, value in lines}
    assert len(samples) == len(lines), "a sample that is told twice"
    return samples


def growth(before: Mapping[str, float], after: Mapping[str, float], part: str) -> Samples:
    """The samples whose name has that part and whose value is another one now, by how much."""
    changed = {name: value - before.get(name, 0) for name, value in after.items() if part in name}
    return {name: value for name, value in changed.items() if value}
