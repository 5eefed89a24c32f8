"""Every policy engine against a brute-force oracle, in random worlds of two tenants that use the same names."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select

from app.authz.tree import SCOPES
from app.core.permissions import Action
from app.models import ApiCall, ApiKey, AuditEvent, Document, DocumentVersion, Execution, Organization, Project
from tests.support.engines import Candidate
from tests.support.oracle import NARROW_KEY, PROFILE, Story, World, a_caller, a_story, identity_of, open_world

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
