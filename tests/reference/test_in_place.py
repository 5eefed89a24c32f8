"""A start on the reference's own database, which has our default name: refused, and the database stays as it was."""

import shutil
from pathlib import Path

import pytest

from tests.support.cli import run_saasbase
from tests.support.reference_world import World

TOLD = "take over what SaaSBase 0.1.1 left with 'saasbase import reference'"
ONE_LINE = ("migrate", "serve --port 0", "sweep", "demo", "audit verify", "import reference --dry-run")


def test_a_file_of_the_reference_is_refused_and_stays_as_it_is(sqlite_world: World, tmp_path: Path) -> None:
    folder, file = tmp_path / "data", tmp_path / "data/saasbase.db"
    folder.mkdir()
    shutil.copy(sqlite_world.database_url.removeprefix("jdbc:sqlite:"), file)
    before = file.read_bytes()
    for command in ONE_LINE:
        source = ("--db-url", sqlite_world.database_url, "--storage", str(sqlite_world.documents)) if "import" in command else ()
        ended = run_saasbase(tmp_path, *command.split(), *source)
        assert (ended.status, ended.out, ended.err.count("\n"), TOLD in ended.err) == (1, "", 1, True), (command, ended)
        assert [path.name for path in folder.iterdir()] == ["saasbase.db"], command
    ended = run_saasbase(tmp_path, "doctor")
    assert ended.status == 1
    assert [line.split()[1] for line in ended.out.splitlines() if TOLD in line] == ["database", "schema"]
    assert file.read_bytes() == before
    assert not [*folder.glob("saasbase.db-*")]


@pytest.mark.parametrize("command", ["migrate", "serve --port 0"])
def test_a_postgresql_of_the_reference_is_refused(command: str, postgresql_world: World, tmp_path: Path) -> None:
    ended = run_saasbase(tmp_path, *command.split(), SAASBASE_DB_URL=postgresql_world.database_url)
    assert (ended.status, ended.out, ended.err.count("\n"), TOLD in ended.err) == (1, "", 1, True), ended
