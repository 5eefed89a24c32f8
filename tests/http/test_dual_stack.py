"""A socket for both kinds of addresses, which shows IPv4 callers as IPv6 ones: they are taken for what they are."""

from pathlib import Path

import httpx
import pytest

from tests.support.server import run_server

ALICE = {"X-SaaSBase-Actor": "user:alice"}


@pytest.mark.parametrize("workers", [1, 2])
def test_callers_by_ipv4_have_their_own_address_at_a_socket_for_both(workers: int, tmp_path: Path) -> None:
    with run_server(f"sqlite:///{tmp_path}/test.db", tmp_path, workers=workers, host="::") as server:
        port = server.url.rpartition(":")[2]
        assert f"http://[::]:{port}/docs" in server.log
        with httpx.Client(base_url=f"{server.url}/api", headers=ALICE, timeout=60) as client:
            organization = client.post("/organizations", json={"slug": "acme"}).raise_for_status().json()["id"]
            events = client.get("/audit-events", params={"organization_id": organization}).json()["items"]
            assert {event["ip"] for event in events} == {"127.0.0.1"}
            key = {"name": "k", "scope_type": "ORGANIZATION", "scope_id": organization, "role": "ORG_MEMBER"}
            token = client.post("/api-keys", json={**key, "allowed_cidrs": ["127.0.0.1/32"]}).raise_for_status().json()["token"]
        bearer = {"Authorization": f"Bearer {token}"}
        for host, status in {"127.0.0.1": 200, "[::1]": 401}.items():
            answer = httpx.get(f"http://{host}:{port}/api/organizations/{organization}", headers=bearer, timeout=60)
            assert answer.status_code == status, host
