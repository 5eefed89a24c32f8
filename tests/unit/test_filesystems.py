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


@pytest.mark.parametrize(
    ("kind", "is_shared"),
    [
        *((kind, True) for kind in ("ocfs2", "gfs2", "9p", "virtiofs", "beegfs", "lustre", "gpfs", "smb3", "ceph")),
        *((f"fuse.{kind}", True) for kind in ("juicefs", "gcsfuse", "rclone", "s3fs", "sshfs", "ceph-fuse")),
        *((kind, False) for kind in ("ext4", "xfs", "btrfs", "zfs", "overlay", "tmpfs", "fuseblk", "fuse.fuse-overlayfs", "fuse.mergerfs")),
    ],
)
def test_what_several_hosts_may_write_to_is_known(kind: str, *, is_shared: bool, tmp_path: Path) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(f"24 1 8:1 / / rw - ext4 /dev/sda1 rw\n25 24 0:22 / /srv rw,relatime shared:2 - {kind} somewhere rw\n")
    assert network_kind(Path("/srv/saasbase.db"), mounts) == (kind if is_shared else None)


def test_where_the_system_does_not_tell_nothing_is_known(tmp_path: Path) -> None:
    assert network_kind(Path("/srv/saasbase.db"), tmp_path / "absent") is None


@pytest.mark.parametrize(("environment", "is_refused"), [("production", True), ("development", False)])
def test_production_keeps_sqlite_on_one_host(environment: str, *, is_refused: bool, mounts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.main.network_kind", lambda file: network_kind(file, mounts))
    settings = Settings.model_validate({"environment": environment, "db_url": "sqlite:////srv/saasbase.db"})
    if not is_refused:
        make_database(settings)
        return
    with pytest.raises(DatabaseURLError, match="SAASBASE_DB_URL: nfs4 is a network or shared file system"):
        make_database(settings)
