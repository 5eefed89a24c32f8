"""Every policy engine against a brute-force oracle, in random worlds of two tenants that use the same names."""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select

from app.authn.api_keys import KeyVerifier
from app.authz.tree import SCOPES
from app.core.actors import Actor
from app.core.clock import now
from app.core.pagination import CursorPage, CursorRequest, decode_cursor
from app.core.permissions import Action
from app.db.listing import Listing, equals
from app.db.pages import fetch_page
from app.db.wanted import Wanted
from app.models import ApiCall, ApiKey, AuditEvent, Document, DocumentVersion, Execution, Organization, Project
from tests.support.engines import Candidate
from tests.support.oracle import (
    NARROW_KEY,
    PEPPER,
    PROFILE,
    TOKENS,
    WHOLE_KEY,
    Story,
    World,
    a_caller,
    a_story,
    identity_of,
    open_world,
)

pytestmark = pytest.mark.anyio


@pytest.fixture
async def world(database_url: str, candidate: Candidate) -> AsyncIterator[World]:
    async with open_world(database_url, candidate) as opened:
        yield opened


@PROFILE
@given(story=a_story, caller=a_caller)
async def test_the_engine_finds_the_roles_the_oracle_finds(world: World, story: Story, caller: Any) -> None:
    await world.tell(story)
    identity = identity_of(world, caller)
    work = world.work(identity)
    for place in world.places:
        located = await work.locate_ref(place.ref)
        assert located.actions == world.may(story, identity, place), place
        if identity.actor != NARROW_KEY:
            assert located.granted == world.granted(story, identity.actor, place, identity.groups), place
    await work.rollback()


@PROFILE
@given(story=a_story, key=st.sampled_from([WHOLE_KEY, NARROW_KEY]), chosen=st.sets(st.integers(0, 24), min_size=4, max_size=6))
async def test_what_comes_with_the_proof_of_a_key_is_what_the_engine_finds(
    world: World, story: Story, key: Actor, chosen: set[int]
) -> None:
    await world.tell(story)
    policy, verifier = world.candidate.policy, KeyVerifier(world.database, PEPPER, world.candidate.policy)
    models: tuple[Any, ...] = (Organization, Project, Document, ApiCall, Execution, ApiKey)
    columns = {model: model.id for model in models}
    every = [(columns[model], values["id"]) for model, values in world.rows if model in columns]
    for column, value in [*(every[number] for number in chosen), (Project.id, uuid4())]:
        wanted = Wanted(column, value)
        identity = await verifier.verify(TOKENS[key].written, None, wanted)
        assert identity.actor == key
        found = wanted.take(identity.asker, column, value)
        assert found is not None
        alone = await policy.locate(world.database, identity.asker, column, value, now())
        assert await policy.locate(world.database, identity.asker, column, value, now(), found=found) == alone, column
        assert (alone is None) == (found.row is None)


@PROFILE
@given(story=a_story, caller=a_caller, actions=st.sets(st.sampled_from(Action), min_size=1, max_size=2))
async def test_a_list_shows_the_rows_the_oracle_shows(world: World, story: Story, caller: Any, actions: set[Action]) -> None:
    await world.tell(story)
    identity = identity_of(world, caller)
    models: tuple[Any, ...] = (Organization, Project, Document, DocumentVersion, ApiCall, Execution, ApiKey, AuditEvent)
    assert set(models) == set(SCOPES)
    reading = {Action.ORGANIZATION_READ, Action.PROJECT_READ, Action.DOCUMENT_READ}
    for action in sorted(actions | reading):
        if identity.only_actions is not None and action not in identity.only_actions:
            continue  # refused before anything is asked
        work = world.work(identity)
        await work.admit_everywhere(action)
        for model in models:
            found = (await work.session.execute(work.only_visible(select(model.id), model))).scalars().all()
            assert len(found) == len(set(found))
            assert set(found) == world.row_ids(story, identity, model, action), (model.__tablename__, action)
        await work.rollback()


@PROFILE
@given(story=a_story, caller=a_caller, limit=st.integers(1, 3), descending=st.booleans(), tenant=st.none() | st.integers(0, 1))
async def test_keyset_pages_are_the_list_the_oracle_shows(
    world: World, story: Story, caller: Any, limit: int, descending: bool, tenant: int | None
) -> None:
    await world.tell(story)
    identity = identity_of(world, caller)
    home = world.home(tenant).organization_id if tenant is not None else None
    for model, action in ((Document, Action.DOCUMENT_READ), (Project, Action.PROJECT_READ), (Execution, Action.EXECUTION_READ)):
        if identity.only_actions is not None and action not in identity.only_actions:
            continue
        work = world.work(identity)
        await work.admit_everywhere(action)
        listing = Listing(model, {"tenant": model.organization_id}, {"organization_id": equals(model.organization_id)})
        asked = {"organization_id": home} if home is not None else {}
        found: list[Any] = []
        request = CursorRequest(limit, "tenant", descending, None, "")
        while True:
            page = await fetch_page(work.session, listing, asked, request, work.visible_rows(listing.model))
            assert isinstance(page, CursorPage)
            found += [(row.organization_id, row.id) for row in page.items]
            if page.next_cursor is None:
                break
            request = replace(request, after=decode_cursor(page.next_cursor, ""))
        await work.rollback()
        shown = world.row_ids(story, identity, model, action)
        expected = [(row["organization_id"], row["id"]) for table, row in world.rows if table is model and row["id"] in shown]
        assert found == sorted((pair for pair in expected if home in {None, pair[0]}), reverse=descending), model.__tablename__
