"""The fences of the data: what a session lets through before a tenant is pinned, after, and when it only lists."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import delete, exists, func, insert, literal, select, text, union_all, update
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.orm import aliased

from app.audit.denials import DeniedAttempts
from app.audit.trail import Origin, Subject
from app.authz.builtin import BuiltinPolicyEngine
from app.core.actors import Actor, ActorType, Identity
from app.core.events import AuditAction
from app.core.pagination import CursorRequest, Page, PageRequest
from app.core.permissions import Action, Role
from app.db.base import Base
from app.db.engine import Database
from app.db.listing import Listing, equals
from app.db.pages import fetch_page
from app.db.tenancy import TenancyError
from app.db.writes import Insertion
from app.models import AuditEvent, Document, Membership, Organization, Project
from app.unit_of_work import UnitOfWork, UnrecordedChangeError, WorkContext, open_system_work
from tests.support import rows
from tests.support.database import behind, open_database
from tests.support.rows import Place

pytestmark = pytest.mark.anyio

ALICE = Identity(Actor(ActorType.USER, "alice"), "header")
STATEMENTS: dict[str, Callable[[], Any]] = {
    "a select": lambda: select(Project.id),
    "a count": lambda: select(func.count()).select_from(Project),
    "a select of the tenants themselves": lambda: select(Organization.slug),
    "a select of an alias": lambda: select(aliased(Project).id),
    "a select of a subquery": lambda: select(select(Project.id).subquery().c.id),
    "an update": lambda: update(Project).values(name="taken"),
    "a delete": lambda: delete(Project),
    "a union": lambda: union_all(select(Project.id), select(Document.id)),
}
NEVER: dict[str, Callable[[], Any]] = {
    "text": lambda: text("SELECT id FROM projects"),
    "text that answers a mapped class": lambda: select(Project).from_statement(text("SELECT * FROM projects")),
    "a bare table": lambda: select(Project.__table__),
    "a change of a bare table": lambda: update(Base.metadata.tables["projects"]).values(name="taken"),
    "an insert into a bare table": lambda: insert(Base.metadata.tables["projects"]).values(name="new"),
    "a union": lambda: union_all(select(Project.id), select(Document.id)),
    "nothing of any table": lambda: select(func.count()),
}


PROJECTS = Listing(Project, {"created_at": Project.created_at}, {"id": equals(Project.id)})
PAGES = (CursorRequest(20, "created_at", descending=False, after=None, fingerprint=""), PageRequest(0, 20, "created_at", descending=False))


@dataclass(frozen=True)
class World:
    """Two tenants, each with one project and one document; the names tell whose they are."""

    context: WorkContext
    ours: Place
    theirs: Place
    our_project: Place
    their_project: Place

    @property
    def database(self) -> Database:
        return self.context.database

    def work(self, *, pin: UUID | None = None, is_read_only: bool = False) -> UnitOfWork:
        work = UnitOfWork(self.context, ALICE, Origin(), is_read_only=is_read_only)
        if pin is not None:
            work.pin(pin)
        return work

    def project_row(self, organization_id: UUID, **changes: Any) -> dict[str, Any]:
        moment = {"created_at": rows.BEGINNING, "updated_at": rows.BEGINNING, "created_by_subject": "user:alice", "revision": 1}
        return {"id": uuid4(), "organization_id": organization_id, "name": "new", "metadata_": {}, **moment, **changes}

    async def names(self) -> list[str]:
        async with behind(self.database) as connection:
            return sorted((await connection.execute(select(Base.metadata.tables["projects"].c.name))).scalars())


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[World]:
    ours, our_rows = rows.organization("ours")
    theirs, their_rows = rows.organization("theirs")
    our_project, our_project_rows = rows.project(ours, "ours")
    their_project, their_project_rows = rows.project(theirs, "theirs")
    documents = rows.document(our_project, "ours")[1] + rows.document(their_project, "theirs")[1]
    grants = rows.grant(our_project, ALICE.actor, Role.PROJECT_VIEWER)
    async with open_database(database_url) as database:
        await rows.write(database, our_rows + their_rows + our_project_rows + their_project_rows + documents + grants)
        context = WorkContext(database, BuiltinPolicyEngine(), DeniedAttempts())
        yield World(context, ours, theirs, our_project, their_project)


async def refuses(work: UnitOfWork, statement: Any, parameters: Any = None, *, what: str = "") -> None:
    try:
        await work.session.execute(statement, parameters)
    except TenancyError:
        return
    finally:
        await work.rollback()
    pytest.fail(f"this passed the fence: {what or statement}")


async def test_an_unpinned_session_reads_and_writes_nothing(world: World) -> None:
    for what, make in STATEMENTS.items():
        await refuses(world.work(), make(), what=what)
    await refuses(world.work(), insert(Project), world.project_row(world.ours.ref.id))
    work = world.work()
    with pytest.raises(TenancyError):
        await work.session.orm_session.get(Project, world.our_project.ref.id)
    await work.rollback()
    assert await world.names() == ["ours", "theirs"]


async def test_even_a_pinned_session_passes_no_text_and_no_bare_table(world: World) -> None:
    for what, make in NEVER.items():
        await refuses(world.work(pin=world.ours.ref.id), make(), what=what)


SELECTS: dict[str, Callable[[], Any]] = {
    "columns": lambda: select(Project.name),
    "the tenants themselves": lambda: select(Organization.slug),
    "an alias": lambda: select(aliased(Project).name),
    "a join": lambda: select(Document.name).join(Project, Project.id == Document.project_id),
    "the joined side": lambda: select(Document.name).select_from(Project).join(Document, literal(value=True)),
    "an outer join": lambda: select(Document.name).select_from(Project).outerjoin(Document, literal(value=True)),
    "a subquery": lambda: select(select(Project.name).subquery().c.name),
    "a common table expression": lambda: select(select(Project.name).cte().c.name),
    "an in-subquery": lambda: select(Project.name).where(Project.id.in_(select(Document.project_id))),
    "a row lock": lambda: select(Project.name).with_for_update(),
}


async def test_a_pinned_session_selects_only_its_tenant(world: World) -> None:
    for place, expected in ((world.ours, ["ours"]), (world.theirs, ["theirs"])):
        work = world.work(pin=place.ref.id)
        for what, make in SELECTS.items():
            assert list((await work.session.execute(make())).scalars()) == expected, what
        await work.rollback()


async def test_a_pinned_session_counts_and_looks_up_only_its_tenant(world: World) -> None:
    work = world.work(pin=world.ours.ref.id)
    session = work.session.orm_session
    assert (await session.execute(select(func.count()).select_from(Project))).scalar_one() == 1
    assert (await session.execute(select(Project.name, select(func.count(Document.id)).scalar_subquery()))).all() == [("ours", 1)]
    foreign = exists(select(Document.id).where(Document.name == "theirs"))
    assert (await session.execute(select(Project.name, foreign))).all() == [("ours", False)]
    assert await session.get(Project, world.their_project.ref.id) is None
    assert await session.get(Project, world.our_project.ref.id) is not None
    await work.rollback()


async def test_a_pinned_session_changes_only_its_tenant(world: World) -> None:
    work = world.work(pin=world.ours.ref.id)
    changed = await work.session.execute(update(Project).values(name="changed").returning(Project.id))
    assert list(changed.scalars()) == [world.our_project.ref.id]
    by_id = update(Project).where(Project.id == world.their_project.ref.id).values(name="taken").returning(Project.id)
    assert (await work.session.execute(by_id)).all() == []
    by_subquery = update(Project).where(Project.id.in_(select(Document.project_id))).values(name="again").returning(Project.id)
    assert list((await work.session.execute(by_subquery)).scalars()) == [world.our_project.ref.id]
    work.record(AuditAction.PROJECT_UPDATED, Subject(world.our_project.ref, world.ours.ref.id))
    await work.commit()
    assert await world.names() == ["again", "theirs"]


async def test_a_pinned_session_deletes_only_in_its_tenant(world: World) -> None:
    work = world.work(pin=world.ours.ref.id)
    by_id = delete(Project).where(Project.id == world.their_project.ref.id).returning(Project.id)
    assert (await work.session.execute(by_id)).all() == []
    deleted = await work.session.execute(delete(Project).returning(Project.id))
    assert list(deleted.scalars()) == [world.our_project.ref.id]
    assert (await work.session.execute(delete(Organization).where(Organization.slug == "theirs").returning(Organization.id))).all() == []
    work.record(AuditAction.PROJECT_DELETED, Subject(world.our_project.ref, world.ours.ref.id))
    await work.commit()
    assert await world.names() == ["theirs"]


async def test_a_row_cannot_be_moved_to_another_tenant(world: World) -> None:
    for statement, parameters in (
        (update(Project).values(organization_id=world.theirs.ref.id), None),
        (update(Project).values({Project.organization_id: world.theirs.ref.id}), None),
        (update(Project).ordered_values((Project.organization_id, world.theirs.ref.id)), None),
        (update(Project).where(Project.name == "ours"), {"organization_id": world.theirs.ref.id}),
        (update(Organization).values(id=world.theirs.ref.id), None),
    ):
        await refuses(world.work(pin=world.ours.ref.id), statement, parameters)


async def test_a_change_of_many_rows_by_key_is_refused(world: World) -> None:
    many = [{"id": world.their_project.ref.id, "name": "taken"}]
    await refuses(world.work(pin=world.ours.ref.id), update(Project), many)


async def test_an_insert_names_the_pinned_tenant_in_its_parameters(world: World) -> None:
    ours, theirs = world.ours.ref.id, world.theirs.ref.id
    nameless = {key: value for key, value in world.project_row(ours).items() if key != "organization_id"}
    for statement, parameters in (
        (insert(Project), world.project_row(theirs)),
        (insert(Project), [world.project_row(ours), world.project_row(theirs)]),
        (insert(Project), nameless),
        (insert(Project), [world.project_row(ours), nameless]),
        (insert(Project).values(organization_id=ours), nameless),
        (insert(Project).values(**world.project_row(ours)), None),
        (insert(Organization), {"id": theirs, "slug": "new"}),
        (insert(Project), []),
    ):
        await refuses(world.work(pin=ours), statement, parameters)
    work = world.work(pin=ours)
    decoy = insert(Project).values(organization_id=theirs).returning(Project.organization_id)
    assert (await work.session.execute(decoy, world.project_row(ours))).scalar_one() == ours
    await work.rollback()


async def test_a_list_passes_only_statements_through_the_predicate(world: World) -> None:
    work = world.work(is_read_only=True)
    await work.admit_everywhere(Action.PROJECT_READ)
    visible = work.only_visible(select(Project.name), Project)
    assert list((await work.session.execute(visible)).scalars()) == ["ours"]
    counted = visible.with_only_columns(func.count(), maintain_column_froms=True)
    assert (await work.session.execute(counted)).scalar_one() == 1
    both: Any = select(Project.name, Document.name)
    for statement in (
        select(Project.name),
        select(Project.name).where(Project.id == world.our_project.ref.id),
        select(Document.name),
        work.only_visible(select(Project.name), Project).join(Document, literal(value=True)),
        work.only_visible(both, Project),
        work.only_visible(select(aliased(Project).name), Project),
        union_all(visible, select(Project.name)),
        update(Project).values(name="taken"),
        delete(Project),
    ):
        with pytest.raises(TenancyError):
            await work.session.execute(statement)
    await work.rollback()


@pytest.mark.parametrize("is_read_only", [True, False])
@pytest.mark.parametrize("request_", PAGES)
async def test_a_page_passes_the_fence_whichever_way_it_goes(
    world: World, request_: PageRequest | CursorRequest, *, is_read_only: bool
) -> None:
    for _ in range(2):  # the second finds the statements made
        work = world.work(is_read_only=is_read_only)
        with pytest.raises(TenancyError):
            await fetch_page(work.session, PROJECTS, {}, request_)
        await work.admit_everywhere(Action.PROJECT_READ)
        with pytest.raises(TenancyError):
            await fetch_page(work.session, PROJECTS, {}, request_)  # nothing says what is visible
        shown = await fetch_page(work.session, PROJECTS, {}, request_, work.visible_rows(Project))
        assert [row.name for row in shown.items] == ["ours"]
        await work.rollback()
        pinned = world.work(pin=world.theirs.organization_id, is_read_only=is_read_only)
        for given, names in ({}, ["theirs"]), ({"id": world.our_project.ref.id}, []), ({"id": world.their_project.ref.id}, ["theirs"]):
            page = await fetch_page(pinned.session, PROJECTS, given, request_)
            assert [row.name for row in page.items] == names
            assert not isinstance(page, Page) or page.total == len(names)
        await pinned.rollback()


async def test_a_list_that_is_admitted_to_nothing_reads_nothing(world: World) -> None:
    work = world.work(is_read_only=True)
    with pytest.raises(TenancyError):
        await work.session.execute(work.only_visible(select(Project.name), Project))
    await work.rollback()


async def test_a_read_only_session_changes_nothing(world: World) -> None:
    for statement, parameters in (
        (insert(Project), world.project_row(world.ours.ref.id)),
        (update(Project).values(name="changed"), None),
        (delete(Project), None),
    ):
        await refuses(world.work(pin=world.ours.ref.id, is_read_only=True), statement, parameters)
    assert await world.names() == ["ours", "theirs"]


@pytest.mark.parametrize("change", ["insert", "update", "delete"])
async def test_a_change_without_a_record_leaves_nothing(world: World, change: str) -> None:
    statements = {"insert": insert(Project), "update": update(Project).values(name="changed"), "delete": delete(Project)}
    undone: list[str] = []

    async def undo() -> None:
        undone.append(change)

    async def change_silently() -> None:
        async with UnitOfWork(world.context, ALICE, Origin(), is_read_only=False) as work:
            work.pin(world.ours.ref.id)
            work.after_rollback(undo)
            await work.session.execute(statements[change], world.project_row(world.ours.ref.id) if change == "insert" else None)

    with pytest.raises(UnrecordedChangeError):
        await change_silently()
    assert await world.names() == ["ours", "theirs"]
    assert undone == [change]


async def test_a_record_about_another_tenant_cannot_be_written(world: World) -> None:
    async def record_elsewhere() -> None:
        async with open_system_work(world.context, "test", world.ours.ref.id) as work:
            await work.session.execute(update(Project).values(name="changed"))
            work.record(AuditAction.PROJECT_UPDATED, Subject(world.their_project.ref, world.theirs.ref.id))

    with pytest.raises(TenancyError):
        await record_elsewhere()
    assert await world.names() == ["ours", "theirs"]


@pytest.mark.parametrize("was_used", [False, True])
async def test_nothing_is_read_when_the_work_is_over(world: World, was_used: bool) -> None:
    async with UnitOfWork(world.context, ALICE, Origin(), is_read_only=True) as work:
        work.pin(world.ours.ref.id)
        if was_used:
            await work.session.execute(select(Project.name))
    with pytest.raises((TenancyError, InvalidRequestError)):
        await work.session.execute(select(Project.name))


@pytest.mark.parametrize("was_used", [False, True])
async def test_nothing_is_written_when_the_work_is_over(world: World, was_used: bool) -> None:
    insertion = Insertion(Project, [world.project_row(world.ours.ref.id)])
    for end in (UnitOfWork.commit, UnitOfWork.rollback):
        work = world.work(pin=world.ours.ref.id)
        if was_used:
            await work.session.execute(select(Project.name))
        work.record(AuditAction.PROJECT_UPDATED, Subject(world.ours.ref, world.ours.ref.id))
        await end(work)
        with pytest.raises(TenancyError):
            work.session.insert(insertion)
        with pytest.raises(TenancyError):
            async with work.attempt():
                pass
        with pytest.raises(TenancyError):
            await work.commit()
        await work.rollback()
    assert await world.names() == ["ours", "theirs"]


async def test_a_session_that_has_run_something_keeps_its_role(world: World) -> None:
    work = world.work(pin=world.ours.ref.id)
    await work.session.execute(select(Project.name))
    with pytest.raises(TenancyError):
        work.session.use_jobs_role()
    await work.rollback()


@pytest.mark.parametrize("was_used", [False, True])
async def test_a_work_that_is_pinned_does_not_change_its_tenant(world: World, was_used: bool) -> None:
    work = world.work(pin=world.ours.ref.id)
    if was_used:
        await work.session.execute(select(Project.name))
    work.pin(world.ours.ref.id)
    with pytest.raises(TenancyError):
        work.pin(world.theirs.ref.id)
    assert (await work.session.execute(select(Project.name))).scalars().all() == ["ours"]
    await work.rollback()


async def test_objects_are_not_flushed(world: World) -> None:
    work = world.work(pin=world.ours.ref.id)
    work.session.orm_session.add(Project(**world.project_row(world.ours.ref.id)))
    with pytest.raises(TenancyError):
        await work.session.orm_session.flush()
    await work.rollback()
    for touch in ("change", "delete"):
        work = world.work(pin=world.ours.ref.id)
        mine = (await work.session.execute(select(Project))).scalar_one()
        if touch == "change":
            mine.name = "changed"
        else:
            await work.session.orm_session.delete(mine)
        with pytest.raises(TenancyError):
            await work.commit()
        await work.rollback()
    assert await world.names() == ["ours", "theirs"]


async def test_every_table_of_tenants_is_fenced(world: World) -> None:
    models = {mapper.class_.__tablename__: mapper.class_ for mapper in Base.registry.mappers}
    assert models.keys() == Base.metadata.tables.keys()
    owned = {name for name, table in Base.metadata.tables.items() if "organization_id" in table.columns}
    assert owned >= {Project.__tablename__, Membership.__tablename__, AuditEvent.__tablename__}
    for name in owned | {Organization.__tablename__}:
        model: Any = models[name]
        assert model.tenant_column().key == ("id" if model is Organization else "organization_id")
        await refuses(world.work(), select(model))
        work = world.work(pin=uuid4())
        assert (await work.session.execute(select(func.count()).select_from(model))).scalar_one() == 0
        await work.rollback()
