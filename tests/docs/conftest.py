"""A headless Chromium that can reach nothing but the service; where there is none, the run says so."""

import os
import shutil
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Page, Route, sync_playwright

from tests.support.server import Server, run_server

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
# Read here, because no test sees the environment's settings.
IS_REQUIRED = os.environ.get("SAASBASE_REQUIRE_BROWSER") == "1"
LEFT_OUT = (
    "THE BROWSER TESTS OF /docs AND /redoc WERE LEFT OUT: there is no chromium on this machine. "
    "SAASBASE_REQUIRE_BROWSER=1 makes that a failure."
)


class BrowserLeftOutWarning(UserWarning):
    """Stands in the summary of a run without a browser."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the browser tests out where there is no browser, and say it in the summary."""
    if BROWSER is not None or IS_REQUIRED:
        return
    left_out = [item for item in items if "page" in getattr(item, "fixturenames", ())]
    items[:] = [item for item in items if item not in left_out]
    config.hook.pytest_deselected(items=left_out)
    if left_out and os.environ.get("PYTEST_XDIST_WORKER", "gw0") == "gw0":
        # The one report of a worker that reaches the terminal of a run with several; not raised, or it would be an error here.
        message = warnings.WarningMessage(BrowserLeftOutWarning(LEFT_OUT), BrowserLeftOutWarning, __file__, 1)
        told = {"warning_message": message, "nodeid": "tests/docs", "when": "collect", "location": None}
        config.hook.pytest_warning_recorded.call_historic(kwargs=told)


@dataclass(slots=True)
class Visit:
    """A page, and what it did that it should not."""

    page: Page
    url: str
    foreign: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def open(self, path: str, ready: str) -> Page:
        """Go there and wait for an element."""
        self.page.goto(self.url + path)
        self.page.locator(ready).first.wait_for()
        return self.page


@pytest.fixture(scope="module")
def docs_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("docs")
    with run_server(f"sqlite:///{folder}/docs.db", folder) as running:
        yield running


@pytest.fixture
def page(docs_server: Server) -> Iterator[Visit]:
    """A fresh browser. Requests to anybody else are recorded and refused, and no name can be resolved."""
    if BROWSER is None:
        pytest.fail("SAASBASE_REQUIRE_BROWSER=1, and there is no chromium on this machine")
    arguments = ["--no-sandbox", "--disable-background-networking", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=arguments)
        visit = Visit(browser.new_page(viewport={"width": 1300, "height": 1600}), docs_server.url)
        visit.page.set_default_timeout(120_000)

        def check(route: Route) -> None:
            address = urlsplit(route.request.url)
            if f"{address.scheme}://{address.netloc}" == docs_server.url:
                route.continue_()
            else:
                visit.foreign.append(route.request.url)
                route.abort()

        visit.page.context.route("**/*", check)
        visit.page.on("console", lambda message: visit.complaints.append(message.text) if message.type in {"error", "warning"} else None)
        visit.page.on("pageerror", lambda error: visit.complaints.append(str(error)))
        yield visit
        browser.close()
