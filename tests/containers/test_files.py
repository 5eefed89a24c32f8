"""The Dockerfile and the compose file: well formed, and naming only what there is. Building and running them needs an engine."""

import re
import subprocess
import sys
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.settings import setting_names
from tests.support.application import ROOT

TOOLS = Path(sys.executable).parent
DOCKERFILE, COMPOSE = ROOT / "Dockerfile", ROOT / "docker-compose.yml"
SECRETS = {"POSTGRES_PASSWORD", "APP_PASSWORD", "JOBS_PASSWORD", "S3_ACCESS_KEY", "S3_SECRET_KEY", "API_KEY_PEPPER", "AUDIT_KEY"}


def run(*command: str | Path) -> str:
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())
    return found


def test_the_dockerfile_has_no_known_mistakes() -> None:
    run(TOOLS / "hadolint", DOCKERFILE)


def test_the_compose_file_keeps_to_its_schema() -> None:
    run(TOOLS / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", COMPOSE)


def test_the_image_copies_only_what_is_let_into_the_build() -> None:
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {
        name for line in re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE.read_text(), flags=re.MULTILINE) for name in line.split()
    }
    assert copied == allowed
    assert all((ROOT / name).exists() for name in copied)


def test_nothing_can_be_installed_in_what_runs(compose: dict[str, Any]) -> None:
    final = DOCKERFILE.read_text().rpartition("\nFROM ")[2]
    (removed,) = re.findall(r"rm -rf (.+)$", final, flags=re.MULTILINE)
    assert removed.split() == ['"${library}/ensurepip"', '"${modules}/pip"', '"${modules}"/pip-*.dist-info', "/usr/local/bin/pip*"]
    assert "pip install" not in final
    (base,) = re.findall(r"^ARG PYTHON=(\S+)$", DOCKERFILE.read_text(), flags=re.MULTILINE)
    assert compose["services"]["api"]["build"]["args"] == {"PYTHON": f"${{PYTHON_IMAGE:-{base}}}"}


def test_every_setting_that_is_named_exists(compose: dict[str, Any]) -> None:
    named = set(re.findall(r"\bSAASBASE_[A-Z0-9_]+", DOCKERFILE.read_text() + COMPOSE.read_text()))
    assert named - {"SAASBASE_STORAGE__S3__"} <= set(setting_names())
    assert compose["services"]["api"]["environment"]["SAASBASE_ENVIRONMENT"] == "production"


def test_every_secret_is_required_and_made_by_the_one_line_at_the_head(compose: dict[str, Any]) -> None:
    text = COMPOSE.read_text()
    without_default = {name for name, rest in re.findall(r"\$\{([A-Z0-9_]+)(:[-?])?", text) if rest != ":-"}
    assert without_default == set(re.findall(r"\$\{([A-Z0-9_]+):\?", text)) == SECRETS
    (made,) = re.findall(r"for name in ([A-Z0-9_ ]+); do", text)
    assert set(made.split()) == SECRETS
    assert not [value for service in compose["services"].values() for value in service.get("environment", {}).values() if value == ""]


def test_the_documentation_names_all_that_can_be_set_in_dotenv() -> None:
    section = (ROOT / "docs/operations.md").read_text().partition("| In `.env` |")[2].partition("\n\n")[0]
    told = {name for line in section.splitlines() for name in re.findall(r"`([A-Z0-9_]+)`", line.split("|")[1] if "|" in line else "")}
    assert told == set(re.findall(r"(?<!\$)\$\{([A-Z0-9_]+)", COMPOSE.read_text()))


def test_every_service_waits_for_what_it_needs(compose: dict[str, Any]) -> None:
    services = compose["services"]
    for name, service in services.items():
        for needed, how in service.get("depends_on", {}).items():
            if how["condition"] == "service_healthy":
                assert "healthcheck" in services[needed] or services[needed].get("build"), f"{name} waits for the health of {needed}"
            else:
                assert how["condition"] == "service_completed_successfully"
                assert services[needed]["restart"] == "on-failure", f"{needed} runs once"
    assert {"migrate", "s3"} <= services["api"]["depends_on"].keys()


def test_nothing_of_ours_runs_as_root_or_may_write_to_its_image(compose: dict[str, Any]) -> None:
    assert re.search(r"^USER 10001:10001$", DOCKERFILE.read_text(), flags=re.MULTILINE)
    for name, service in compose["services"].items():
        if service["image"] == "saasbase-server":
            assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"]), name


def test_the_replicas_trust_the_proxy_alone_and_it_names_nobody(compose: dict[str, Any]) -> None:
    services, front = compose["services"], compose["networks"]["front"]["ipam"]["config"][0]
    (address,) = (network["ipv4_address"] for network in services["proxy"]["networks"].values())
    assert services["replica"]["environment"]["SAASBASE_ACTOR__TRUSTED_PROXIES"] == f"{address}/32"
    assert ip_address(address) in ip_network(front["subnet"])
    assert ip_address(address) not in ip_network(front["ip_range"]), "a replica could get the address that is trusted"
    assert set(services["proxy"]["networks"]) == {"front"}
    assert [name for name, service in services.items() if "front" in service.get("networks", ())] == ["replica", "proxy"]
    assert services["api"]["environment"]["SAASBASE_ACTOR__TRUSTED_PROXIES"] == "${TRUSTED_PROXIES:-}"
    assert 'proxy_set_header X-SaaSBase-Actor "";' in compose["configs"]["nginx.conf"]["content"]
