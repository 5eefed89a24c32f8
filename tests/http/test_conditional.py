"""Entity tags and conditional requests (RFC 9110, section 13)."""

import pytest

from tests.conftest import Caller, Service
from tests.support.answers import at_once, count_rows, events_of, read_problem

pytestmark = pytest.mark.anyio


async def make_resources(caller: Caller) -> list[str]:
    """The paths of one resource of each kind."""
    organization = await caller.new_organization()
    project = await caller.new_project(organization["id"])
    document = await caller.new_document(project["id"])
    return [f"/documents/{document['id']}", f"/projects/{project['id']}", f"/organizations/{organization['id']}"]


async def test_every_revision_has_a_strong_tag_of_its_own(alice: Caller) -> None:
    tags: list[str] = []
    for path in await make_resources(alice):
        read = await alice.get(path)
        tags.append(read.headers["etag"])
        assert (await alice.get(path)).headers["etag"] == tags[-1]
        for name in ("one", "two", "one"):
            changed = await alice.patch(path, {"name": name})
            assert (await alice.get(path)).headers["etag"] == changed.headers["etag"]
            tags.append(changed.headers["etag"])
    assert len(set(tags)) == 12
    for tag in tags:
        assert tag.startswith('"')
        assert tag.endswith('"')


async def test_a_change_that_names_another_revision_is_refused(service: Service, alice: Caller) -> None:
    for path in await make_resources(alice):
        old = (await alice.get(path)).headers["etag"]
        new = (await alice.patch(path, {"name": "new"}, headers={"If-Match": old})).headers["etag"]
        before = await count_rows(service, "audit_events")
        for stale in (old, f"W/{new}", '"x"', "", new.strip('"'), f'{old}, W/{new}, "y"', '"*"'):
            for refused in (
                await alice.patch(path, {"name": "lost"}, 412, headers={"If-Match": stale}),
                await alice.delete(path, 412, headers={"If-Match": stale}),
                await alice.patch(path, {}, 412, headers={"If-Match": stale}),
            ):
                read_problem(refused, 412, "precondition_failed")
        assert await count_rows(service, "audit_events") == before
        assert (await alice.get(path)).json()["name"] == "new"
        for fresh in ("*", new, f'"x", {new}', f"{old} , {new}"):
            unchanged = await alice.patch(path, {}, headers={"If-Match": fresh})
            assert unchanged.headers["etag"] == new
        lines = [("If-Match", old), ("If-Match", new), *alice.headers.items()]
        assert (await alice.client.patch(f"/api{path}", json={}, headers=lines)).status_code == 200
        await alice.delete(path, 204, headers={"If-Match": new})
        read_problem(await alice.patch(path, {"name": "x"}, 404, headers={"If-Match": "*"}), 404, "not_found")


async def test_of_ten_changes_at_once_of_one_revision_exactly_one_succeeds(alice: Caller) -> None:
    for path in await make_resources(alice):
        tag = (await alice.get(path)).headers["etag"]
        answers = await at_once(*(alice.patch(path, {"name": f"n{number}"}, None, headers={"If-Match": tag}) for number in range(10)))
        assert sorted(answer.status_code for answer in answers) == [200] + [412] * 9
        (won,) = (answer for answer in answers if answer.status_code == 200)
        read = await alice.get(path)
        assert (read.json(), read.headers["etag"]) == (won.json(), won.headers["etag"])
        updates = [event for event in await events_of(alice) if event["action"].endswith("_UPDATED") and event["resource"]["id"] in path]
        assert len(updates) == 1


async def test_of_a_change_and_a_deletion_at_once_one_is_refused(alice: Caller) -> None:
    for _ in range(3):
        organization = await alice.new_organization()
        path = f"/organizations/{organization['id']}"
        tag = {"If-Match": (await alice.get(path)).headers["etag"]}
        changed, deleted = await at_once(alice.patch(path, {"name": "x"}, None, headers=tag), alice.delete(path, None, headers=tag))
        assert (changed.status_code, deleted.status_code) in {(200, 412), (412, 204), (404, 204)}
        assert (await alice.get(path, None)).status_code == (404 if deleted.status_code == 204 else 200)


async def test_changes_without_a_condition_do_not_get_in_each_others_way(alice: Caller) -> None:
    organization = await alice.new_organization()
    path = f"/organizations/{organization['id']}"
    answers = await at_once(*(alice.patch(path, {"name": f"n{number}"}) for number in range(8)))
    assert len({answer.headers["etag"] for answer in answers}) == 8
    assert len(await events_of(alice, action="ORGANIZATION_UPDATED")) == 8


async def test_a_reader_who_has_the_revision_gets_no_body(alice: Caller) -> None:
    for path in await make_resources(alice):
        read = await alice.get(path)
        tag = read.headers["etag"]
        for known in (tag, f"W/{tag}", "*", f'"x", {tag}', f'W/"x",W/{tag}'):
            for method in ("GET", "HEAD"):
                unchanged = await alice.request(method, path, 304, headers={"If-None-Match": known})
                assert unchanged.content == b""
                assert unchanged.headers["etag"] == tag
                assert "content-type" not in unchanged.headers
        for other in ('"x"', "", tag.strip('"')):
            assert (await alice.get(path, headers={"If-None-Match": other})).json() == read.json()
        await alice.patch(path, {"name": "new"})
        assert (await alice.get(path, headers={"If-None-Match": tag})).json()["name"] == "new"


async def test_conditions_come_after_the_right_to_see(service: Service, alice: Caller, mallory: Caller) -> None:
    paths = await make_resources(alice)
    for path in paths:
        tag = (await alice.get(path)).headers["etag"]
        for condition in ({"If-Match": tag}, {"If-Match": '"x"'}, {"If-None-Match": tag}, {"If-None-Match": "*"}):
            read_problem(await mallory.get(path, 404, headers=condition), 404, "not_found")
            read_problem(await mallory.patch(path, {"name": "x"}, 404, headers=condition), 404, "not_found")
            read_problem(await service.as_(None).delete(path, 401, headers=condition), 401, "unauthenticated")
    await alice.grant("ORGANIZATION", paths[2].rpartition("/")[2], "user:bob", "ORG_MEMBER")
    read_problem(await service.as_("user:bob").patch(paths[2], {"name": "x"}, 403, headers={"If-Match": '"x"'}), 403, "forbidden")


async def test_head_is_answered_where_get_is(service: Service, alice: Caller, mallory: Caller) -> None:
    paths = await make_resources(alice)
    lists = ["/organizations", "/organizations/all", "/projects", "/audit-events", "/documents"]
    for path in [*paths, *lists]:
        got, head = await alice.get(path), await alice.request("HEAD", path, 200)
        same = ("content-type", "content-length", "etag")
        assert [head.headers.get(name) for name in same] == [got.headers.get(name) for name in same]
    assert (await mallory.request("HEAD", paths[0])).status_code == 404
    assert (await alice.request("HEAD", "/memberships")).status_code == 422
    assert (await service.as_(None).request("HEAD", paths[0])).status_code == 401
