"""What kind of file system a file lies on."""

from pathlib import Path
from typing import Final

# Of the network, of clusters over shared disks, and of a virtual machine's host, by the names that Linux calls them.
SHARED: Final = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "coda", "ncpfs", "davfs", "fuse.sshfs"}
    | {"ceph", "fuse.ceph", "fuse.ceph-fuse", "glusterfs", "fuse.glusterfs", "lustre", "gpfs", "beegfs", "orangefs", "pvfs2", "wekafs"}
    | {"ocfs2", "gfs2", "9p", "virtiofs", "vboxsf", "prl_fs", "fuse.vmhgfs-fuse"}
    | {"fuse.juicefs", "fuse.mfs", "fuse.seaweedfs", "fuse.cubefs"}
    | {"fuse.s3fs", "fuse.goofys", "fuse.gcsfuse", "fuse.blobfuse", "fuse.blobfuse2", "fuse.rclone"}
)
_MOUNTS: Final = Path("/proc/self/mountinfo")


def network_kind(path: Path, mounts: Path = _MOUNTS) -> str | None:
    """The kind of a file system that other hosts may write to as well; None for every other, and where the system does not tell."""
    try:
        lines = mounts.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    place = path.resolve()
    found = [(fields[4], _kind(fields)) for fields in map(str.split, lines) if place.is_relative_to(_unescaped(fields[4]))]
    _, kind = max(found, key=lambda mount: len(mount[0]), default=("", ""))
    return kind if kind in SHARED else None


def _kind(fields: list[str]) -> str:
    return fields[fields.index("-") + 1]


def _unescaped(text: str) -> str:
    return text.replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\")
