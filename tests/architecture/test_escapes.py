"""Ways around the tenant fence exist for who needs them: only in the modules named here, each for its reason."""

import ast
from collections import defaultdict
from pathlib import Path

import pytest

from tests.support.application import ROOT, python_files

ALLOWED = {
    "open_read": {
        "app/db/engine.py": "defines it, and pings",
        "app/db/migrations.py": "reads the schema's version, which belongs to no tenant",
        "app/db/roles.py": "asks what a role may see, before the service serves",
        "app/unit_of_work.py": "asks the questions of the policy engine, which are about what is not pinned",
        "app/authn/api_keys.py": "finds the key that the command line names by its prefix",
        "app/authz/outbox.py": "asks which organizations have changes to send",
        "app/reference/target.py": "asks whether another organization has the slug of one that is being imported",
        "app/audit/sealer.py": "asks which organizations have events to seal, and which chains have moved",
        "app/audit/report.py": "lists the organizations that have a trail, for the command line",
        "app/authz/reconcile.py": "compares the grants of every tenant with OpenFGA's",
        "app/blobs/sweeper.py": "asks for every tenant which contents still have a row",
        "app/blobs/mark.py": "reads the id of the installation, and addresses of contents whosever they are",
        "app/resources/executions/deadlines.py": "asks which tenants have executions past their deadline",
        "app/resources/audit_events/retention.py": "asks which tenants have events past their retention",
        "app/blobs/disk.py": "the blob store's method of the same name",
        "app/blobs/s3.py": "the blob store's method of the same name",
        "app/blobs/store.py": "the blob store's method of the same name",
        "app/resources/documents/service.py": "the blob store's method of the same name",
    },
    "look_up": {
        "app/db/engine.py": "defines it",
        "app/authz/builtin.py": "locates a row together with the caller's roles on it: before that no tenant is known",
        "app/authn/api_keys.py": "finds a key by its prefix: whose it is, the row tells",
    },
    "look_up_all": {
        "app/db/engine.py": "defines it",
        "app/authz/bulk.py": "asks what askers hold on resources: that is the authorization",
        "app/db/session.py": "runs pages of lists, which its fence has let pass",
        "app/db/pages.py": "asks the session for it",
    },
    "write_at_once": {
        "app/db/engine.py": "defines it",
        "app/db/session.py": "writes what its fence has let pass, at its commit",
    },
    "open_snapshot": {
        "app/db/snapshot.py": "defines it",
        "app/audit/verification.py": "reads one chain as of one moment, confined to its organization",
    },
    "__table__": {
        "app/authz/builtin.py": "the policy engine's statements run before a tenant is pinned",
        "app/authz/subjects.py": "parts of the policy engine's statements",
        "app/authz/bulk.py": "the policy engine's statements for many questions at once",
        "app/authz/questions.py": "the rows behind a verdict, for resources that were located before",
        "app/authn/api_keys.py": "the row of a key tells its tenant, so none is known before",
        "app/authz/outbox.py": "sends the changes of every tenant, each in a transaction of its own",
        "app/authz/reconcile.py": "compares the grants of every tenant with OpenFGA's",
        "app/authz/memberships.py": "whether a caller holds a grant himself is asked before a tenant is pinned",
        "app/blobs/sweeper.py": "selects addresses of contents of every tenant",
        "app/audit/chain.py": "names the columns that are hashed and signed, runs nothing",
        "app/audit/sealer.py": "seals the events of every tenant, organization by organization",
        "app/audit/report.py": "lists the organizations that have a trail, for the command line",
        "app/audit/verification.py": "reads one chain in a snapshot, which a session of the fence does not offer",
        "app/db/repository.py": "reads a column's name, runs nothing",
        "app/db/writes.py": "writes the rows that a session has let pass",
        "app/limits/shared.py": "counts requests of callers, which belong to no tenant",
    },
    "open_system_work": {
        "app/cli/operating.py": "what the operator does in one tenant from the command line",
        "app/reference/target.py": "writes what an import found, tenant by tenant",
        "app/unit_of_work.py": "defines it",
        "app/jobs.py": "writes refused attempts tenant by tenant",
        "app/resources/executions/deadlines.py": "ends executions past their deadline tenant by tenant",
        "app/resources/audit_events/retention.py": "prunes events past their retention tenant by tenant",
    },
    "text": {
        "app/db/engine.py": "SELECT 1",
        "app/db/migrations.py": "takes the advisory lock",
        "app/models/execution.py": "the condition of a partial index",
        "app/models/audit_event.py": "the condition of a partial index",
        "app/db/roles.py": "reads the catalogue, and takes an advisory lock",
        "app/db/writes.py": "the expression that names the tenants of what is written",
    },
    "exec_driver_sql": {
        "app/db/engine.py": "BEGIN IMMEDIATE",
        "app/db/snapshot.py": "BEGIN, on SQLite",
        "app/db/roles.py": "makes roles, grants and policies, which take no parameters",
    },
    "writer": {
        "app/db/engine.py": "defines it",
        "app/db/migrations.py": "changes the schema",
        "app/db/roles.py": "makes roles, as the one that owns the tables",
        "app/db/session.py": "runs statements on it, each through its fence",
        "app/authn/api_keys.py": "notes the last use of keys of every tenant, in one batch",
        "app/authz/outbox.py": "removes what was sent, organization by organization",
        "app/audit/sealer.py": "seals events, organization by organization",
        "app/limits/shared.py": "counts requests of callers, which belong to no tenant",
        "app/authz/reconcile.py": "writes down what is to be repaired, organization by organization",
        "app/resources/audit_events/export.py": "the writer of the library csv",
    },
    "for_jobs": {
        "app/db/engine.py": "defines it",
        "app/db/roles.py": "asks whether its role sees every tenant, and names the role that is to be made",
        "app/authn/api_keys.py": "notes the last use of keys of every tenant, in one batch",
        "app/authz/outbox.py": "sends the changes of every tenant",
        "app/audit/report.py": "verifies the chain of every tenant",
        "app/resources/audit_events/retention.py": "asks which tenants have events past their retention",
        "app/audit/sealer.py": "seals the events of every tenant: the role of requests cannot change one",
        "app/authz/reconcile.py": "compares the grants of every tenant with OpenFGA's",
        "app/blobs/sweeper.py": "asks for every tenant which contents still have a row",
        "app/blobs/mark.py": "reads the id of the installation, and addresses of contents whosever they are",
        "app/db/session.py": "gives a session that prunes events the role that may",
        "app/resources/executions/deadlines.py": "asks which tenants have executions past their deadline",
    },
    "use_jobs_role": {
        "app/db/session.py": "defines it",
        "app/resources/audit_events/repository.py": "the role of requests removes no events, nor says how long they stay",
        "app/resources/audit_events/retention.py": "removes events",
    },
    "confine": {
        "app/db/confinement.py": "defines it",
        "app/db/engine.py": "confines a read",
        "app/db/snapshot.py": "confines reads that belong together",
        "app/db/tenancy.py": "confines each transaction of a session",
    },
    "reader": {
        "app/db/engine.py": "defines it",
        "app/db/snapshot.py": "reads of one moment, confined like single ones",
        "app/db/session.py": "runs statements on it, each through its fence",
    },
    "pin": {
        "app/unit_of_work.py": "admits a caller to the tenant of what it located",
        "app/db/tenancy.py": "holds it",
        "app/db/pages.py": "asks whether there is one, as the fence does",
        "app/resources/organizations/service.py": "has just made the organization",
        "app/resources/audit_events/router.py": "records an export where the caller was admitted, beside the read that it is",
    },
    "pin_tenant": {"app/unit_of_work.py": "the only way to it", "app/db/tenancy.py": "defines it"},
    "orm_session": {"app/db/session.py": "defines it, and runs statements on it"},
    "fence": {
        "app/db/tenancy.py": "is what it stands in",
        "app/db/session.py": "has it",
        "app/db/pages.py": "asks whether a page may be looked up, and which select it lets pass",
        "app/unit_of_work.py": "says who was admitted to what",
    },
    "has_changed": {
        "app/db/tenancy.py": "notes changes",
        "app/db/session.py": "takes back what an attempt that failed has noted",
        "app/unit_of_work.py": "refuses changes that were not recorded, but for what is its own record",
    },
    "is_its_own_record": {
        "app/unit_of_work.py": "defines it",
        "app/resources/executions/service.py": "a heartbeat: the row says who and when, and an event for each would bury the others",
    },
    "confine_to": {"app/unit_of_work.py": "adds the policy engine's predicate", "app/db/visibility.py": "defines it"},
}


def uses(path: Path) -> set[str]:
    """The guarded names a module defines, imports from elsewhere, or reaches as an attribute."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute):
            found.add(node.attr)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.ImportFrom):
            found |= {alias.name for alias in node.names}
    return found


@pytest.fixture(scope="module")
def users() -> dict[str, set[str]]:
    found: dict[str, set[str]] = defaultdict(set)
    for path in python_files("app"):
        for name in uses(path) & set(ALLOWED):
            found[name].add(str(path.relative_to(ROOT)))
    return found


@pytest.mark.parametrize("name", sorted(ALLOWED))
def test_a_way_around_the_fence_is_used_only_where_it_is_named(name: str, users: dict[str, set[str]]) -> None:
    assert users[name] == set(ALLOWED[name]), f"{name}: a new use needs its reason here, a use that is gone leaves this list"


@pytest.mark.parametrize(
    "source", ["x.open_read()", "T.__table__", "from sqlalchemy import text", "from app.unit_of_work import open_system_work"]
)
def test_the_search_sees_a_use(source: str, tmp_path: Path) -> None:
    module = tmp_path / "module.py"
    module.write_text(source)
    assert uses(module) & set(ALLOWED)
