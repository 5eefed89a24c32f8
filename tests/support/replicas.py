"""Two processes of the service behind nginx, as the profile "scale" of docker-compose.yml has them, and with its nginx.conf."""

import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx
import yaml

from tests.support.postgres import START_SECONDS, free_port
from tests.support.server import ROOT, Server, run_server

REPLICAS: Final = 2


@dataclass(frozen=True, slots=True)
class Replicas:
    """They answer at one URL; where nginx would keep what it does not pass on at once is a folder."""

    url: str
    servers: list[Server]
    buffers: Path

    @property
    def buffered(self) -> list[Path]:
        """The bodies that nginx has put aside."""
        return [path for path in self.buffers.rglob("*") if path.is_file()]


def find_program(name: str) -> str | None:
    """A server's program, which Debian keeps where only root looks."""
    return shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin")


def are_expected() -> bool:
    """Whether tests run on them here: nginx and PgBouncer are installed."""
    return find_program("nginx") is not None and find_program("pgbouncer") is not None


@contextmanager
def run_replicas(database_url: str, folder: Path, *, front_proxy: str | None = None, **environment: str) -> Iterator[Replicas]:
    """Start them on a database with its schema, and nginx before them, which believes that proxy; ends all with the block."""
    with ExitStack() as stack:
        settings = {"SAASBASE_ACTOR__TRUSTED_PROXIES": "127.0.0.1/32", **environment}
        servers = [stack.enter_context(run_server(database_url, folder, workers=1, **settings)) for _ in range(REPLICAS)]
        buffers = folder / "buffers"
        yield Replicas(stack.enter_context(_run_nginx(folder, buffers, servers, front_proxy)), servers, buffers)


@contextmanager
def _run_nginx(folder: Path, buffers: Path, servers: list[Server], front_proxy: str | None) -> Iterator[str]:
    binary = find_program("nginx")
    if binary is None:
        raise RuntimeError("there is no nginx on this machine")
    port = free_port()
    buffers.mkdir()
    configuration, log_path = folder / "nginx.conf", folder / "nginx.log"
    configuration.write_text(render_nginx(port, servers, buffers, front_proxy))
    command: list[str | Path] = [
        binary,
        "-e",
        "stderr",
        "-p",
        folder,
        "-c",
        configuration,
        "-g",
        f"daemon off; pid {folder / 'nginx.pid'};",
    ]
    with log_path.open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        _wait_until_open(port, process, log_path)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(60)


def render_nginx(port: int, servers: list[Server], buffers: Path, front_proxy: str | None) -> str:
    """The compose file's nginx.conf with other addresses and folders; all else is word for word the same."""
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    given = {"FRONT_PROXY": front_proxy} if front_proxy is not None else {}
    written = str(compose["configs"]["nginx.conf"]["content"])
    text = re.sub(r"\$\{(\w+):-(.*?)\}", lambda found: given.get(found[1], found[2]), written).replace("$$", "$")
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    here = {
        "resolver 127.0.0.11 valid=5s;": "access_log off;",
        "server replica:8000 resolve;": " ".join(f"server {server.url.removeprefix('http://')};" for server in servers),
        "listen 8080;": f"listen 127.0.0.1:{port};",
        "http {": "http { " + " ".join(f"{kind}_temp_path {buffers / kind};" for kind in kinds),
    }
    for word, other in here.items():
        if text.count(word) != 1:
            raise ValueError(f"nginx.conf has {word!r} {text.count(word)} times")
        text = text.replace(word, other)
    return text


def _wait_until_open(port: int, process: subprocess.Popen[bytes], log_path: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(httpx.TransportError):
            httpx.get(f"http://127.0.0.1:{port}/livez", timeout=60)
            return
        time.sleep(0.02)
    raise RuntimeError(f"nginx did not start: {log_path.read_text(errors='replace')[-2000:]}")
