"""Whether a file lies where other hosts may write too, read from what Linux says of its mounts."""

from pathlib import Path

import pytest

from app.db.filesystems import network_kind
from app.db.urls import DatabaseURLError
from app.main import make_database
from app.settings import Settings

MOUNTS = """\
24 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
25 24 0:22 / /srv rw shared:2 - nfs4 server:/export rw,vers=4.2
26 25 8:2 / /srv/local rw shared:3 - xfs /dev/sdb1 rw
27 24 0:23 / /with\\040space rw - cifs //server/share rw
"""


@pytest.fixture
def mounts(tmp_path: Path) -> Path:
    file = tmp_path / "mountinfo"
    file.write_text(MOUNTS)
    return file


@pytest.mark.parametrize(
    ("file", "kind"),
    [
        ("/var/lib/saasbase.db", None),
        ("/srv/saasbase.db", "nfs4"),
        ("/srv/deep/er/saasbase.db", "nfs4"),
        ("/srv/local/saasbase.db", None),
        ("/srvice/saasbase.db", None),
        ("/with space/saasbase.db", "cifs"),
    ],
)
def test_the_nearest_mount_decides(file: str, kind: str | None, mounts: Path) -> None:
    assert network_kind(Path(file), mounts) == kind


def test_where_the_system_does_not_tell_nothing_is_known(tmp_path: Path) -> None:
    assert network_kind(Path("/srv/saasbase.db"), tmp_path / "absent") is None


@pytest.mark.parametrize(("environment", "is_refused"), [("production", True), ("development", False)])
def test_production_keeps_sqlite_on_one_host(environment: str, *, is_refused: bool, mounts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.main.network_kind", lambda file: network_kind(file, mounts))
    settings = Settings.model_validate({"environment": environment, "db_url": "sqlite:////srv/saasbase.db"})
    if not is_refused:
        make_database(settings)
        return
    with pytest.raises(DatabaseURLError, match="SAASBASE_DB_URL: nfs4 is a network file system"):
        make_database(settings)
