"""/docs and /redoc as a stranger without internet meets them: whole, quiet, and every form works."""

import json
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
from playwright.sync_api import Locator

from tests.docs.conftest import Visit
from tests.support.application import make_app, operations

TAGS = [
    "organizations",
    "projects",
    "documents",
    "api-calls",
    "executions",
    "memberships",
    "groups",
    "api-keys",
    "authorization",
    "authzen",
    "audit-events",
    "operations",
]
ALICE = {"X-SaaSBase-Actor": "user:alice"}


def authorize(visit: Visit, actor: str) -> None:
    visit.page.locator(".btn.authorize").click()
    form = visit.page.locator(".auth-container", has_text="actor")
    form.locator("input").fill(actor)
    form.get_by_role("button", name="Apply credentials").click()
    form.get_by_role("button", name="Close", exact=True).click()


def try_out(visit: Visit, tag: str, operation: str) -> Locator:
    """The open form of an operation."""
    block = visit.page.locator(f"#operations-{tag}-{operation}")
    block.locator(".opblock-summary-control").click()
    block.locator(".try-out__btn").click()
    return block


def execute(block: Locator) -> tuple[int, Any]:
    """Press the button; the status and the body that the page shows."""
    block.locator(".execute").click()
    answer = block.locator(".live-responses-table .response").first
    answer.wait_for()
    status = answer.locator(".response-col_status").inner_text().split()[0]
    return int(status), json.loads(answer.locator(".response-col_description .microlight").first.inner_text())


def new_project(url: str) -> str:
    organization = httpx.post(f"{url}/api/organizations", json={"slug": f"docs-{uuid4().hex}"}, headers=ALICE, timeout=60).json()["id"]
    body = {"organization_id": organization, "name": "Website"}
    return str(httpx.post(f"{url}/api/projects", json=body, headers=ALICE, timeout=60).json()["id"])


def test_docs_show_every_operation_and_ask_nobody_else(page: Visit, tmp_path: Path) -> None:
    shown = page.open("/docs", ".opblock")
    shown.wait_for_load_state("networkidle")
    assert shown.locator(".opblock").count() == len(list(operations(make_app(tmp_path))))
    assert [tag.get_attribute("data-tag") for tag in shown.locator(".opblock-tag").all()] == TAGS
    assert (page.foreign, page.complaints) == ([], [])


def test_the_watch_sees_a_request_to_somebody_else(page: Visit) -> None:
    page.page.goto("about:blank")  # has no content security policy that would refuse it first
    page.page.evaluate("fetch('http://cdn.example/x.js').catch(() => null)")
    assert page.foreign == ["http://cdn.example/x.js"]
    assert page.complaints != []


def test_an_organization_is_created_from_the_page_with_the_example(page: Visit) -> None:
    page.open("/docs", ".opblock")
    form = try_out(page, "organizations", "create_organization")
    status, problem = execute(form)
    assert (status, problem["code"]) == (401, "unauthenticated")
    authorize(page, "user:alice")
    form.locator(".btn-clear").click()
    status, organization = execute(form)
    assert (status, organization["slug"], organization["created_by_subject"]) == (201, "acme", "user:alice")
    assert httpx.get(f"{page.url}/api/organizations/{organization['id']}", headers=ALICE, timeout=60).json() == organization
    assert page.foreign == []


def test_authorize_offers_the_header_and_the_bearer_key(page: Visit) -> None:
    shown = page.open("/docs", ".opblock")
    shown.locator(".btn.authorize").click()
    text = shown.locator(".dialog-ux").inner_text()
    assert "X-SaaSBase-Actor" in text
    assert "bearer" in text
    assert shown.locator(".auth-container input").count() == 2


def test_a_file_is_uploaded_from_the_page_with_untouched_fields(page: Visit, tmp_path: Path) -> None:
    project = new_project(page.url)
    file = tmp_path / "Grüße.txt"
    file.write_bytes(b"hello")
    page.open("/docs", ".opblock")
    authorize(page, "user:alice")
    form = try_out(page, "documents", "create_document")
    assert form.locator("input[type=file]").count() == 1
    form.get_by_placeholder("project_id").fill(project)
    form.locator("input[type=file]").set_input_files(file)
    status, document = execute(form)
    assert status == 201, document
    assert (document["name"], document["media_type"], document["current_version_name"]) == ("Grüße.txt", "text/plain", "v1")
    content = httpx.get(f"{page.url}/api/documents/{document['id']}/content", headers=ALICE, timeout=60)
    assert content.content == b"hello"


def test_a_version_is_uploaded_from_the_page_with_every_field(page: Visit, tmp_path: Path) -> None:
    project = new_project(page.url)
    made = httpx.post(
        f"{page.url}/api/projects/{project}/documents", files={"file": ("a.txt", b"1", "text/plain")}, headers=ALICE, timeout=60
    ).json()
    file = tmp_path / "b.bin"
    file.write_bytes(b"22")
    page.open("/docs", ".opblock")
    authorize(page, "user:alice")
    form = try_out(page, "documents", "create_document_version")
    form.get_by_placeholder("document_id").fill(made["id"])
    form.locator("input[type=file]").set_input_files(file)
    for name, value in {"name": "Renamed", "media_type": "text/csv", "metadata": '{"a": 1}'}.items():
        form.locator(f"tr[data-property-name={name}] input[type=text], [placeholder={name}]").first.fill(value)
    status, document = execute(form)
    assert status == 201, document
    assert (document["name"], document["media_type"], document["current_version_name"]) == ("Renamed", "text/csv", "v2")
    version = httpx.get(f"{page.url}/api/documents/{document['id']}/versions/v2", headers=ALICE, timeout=60).json()
    assert (version["metadata"], version["size_bytes"]) == ({"a": 1}, 2)


def test_redoc_shows_every_operation_and_asks_nobody_else(page: Visit, tmp_path: Path) -> None:
    shown = page.open("/redoc", "h1")
    shown.locator("h2", has_text="Which release this is").wait_for()
    shown.wait_for_load_state("networkidle")
    titles = shown.locator("h2").all_inner_texts()
    assert [title for title in titles if title in TAGS] == TAGS
    assert {operation.body["summary"] for operation in operations(make_app(tmp_path))} <= set(titles)
    assert (page.foreign, page.complaints) == ([], [])
