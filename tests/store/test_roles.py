"""What the roles of docs/cluster.md may do on a server that asks for passwords, and what is said when they may not."""

from __future__ import annotations

import hashlib
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from searcher.store import database
from searcher.store.schema import HEAD
from tests.support import ROOT
from tests.support.commands import Cli
from tests.support.databases import OLD, put
from tests.support.postgres import Server

pytestmark = pytest.mark.slow

PASSWORD = "canary/%@:"  # as hard to quote as a password can be
FAST = ("-q", "--pool", "inline", "--limit-train", "100", "--width", "4", "--epochs", "1", "--baselines", "relu")
WARNED = ("permission denied", "no privileges were granted", "no privileges could be revoked")


def documented_sql() -> list[str]:
    """What is run in any database, and what in the new one."""
    text = (ROOT / "docs" / "cluster.md").read_text()
    made, granted = re.findall(r"^```sql\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    return [made, granted]


class Roles:
    """A server whose superuser is trusted and whose other roles are not."""

    def __init__(self, directory: Path) -> None:
        self.server = Server(directory)
        self.root = sa.make_url(self.server.url)
        rules = directory / "pg_hba.conf"
        rules.write_text("local all postgres trust\nlocal all all scram-sha-256\n")
        self.run("SELECT pg_reload_conf()")

    def run(self, sql: str, name: str = "postgres") -> None:
        url = self.root.set(drivername="postgresql", database=name).render_as_string(hide_password=False)
        with closing(psycopg.connect(url, autocommit=True)) as connection:
            for statement in re.sub(r"--.*", "", sql).split(";"):
                if statement.strip():
                    connection.execute(statement.encode())

    def url(self, role: str, name: str = "searcher", password: str | None = PASSWORD) -> str:
        given = self.root.set(username=role, password=password, database=name)
        return given.render_as_string(hide_password=False)


@pytest.fixture(scope="module")
def roles(new_folder: Callable[[], Path]) -> Iterator[Roles]:
    """The documented roles, with passwords, on a database that a searcher of old has filled."""
    made = Roles(new_folder())
    in_any, in_the_new = documented_sql()
    made.run(in_any)
    made.run(in_the_new, "searcher")
    for role in ("searcher", "searcher_reader"):
        made.run(f"ALTER ROLE {role} PASSWORD '{PASSWORD}'")
    made.run(f"CREATE ROLE stranger LOGIN PASSWORD '{PASSWORD}'; CREATE DATABASE empty; CREATE DATABASE closed")
    made.run("REVOKE ALL ON SCHEMA public FROM PUBLIC", "closed")
    put(OLD[1], made.url("searcher"))
    yield made
    made.server.close()


@pytest.fixture
def writer(roles: Roles) -> str:
    """The writer's URL; the tables are current."""
    database.connect(roles.url("searcher"), create=True).dispose()
    return roles.url("searcher")


@pytest.fixture
def reader(roles: Roles, writer: str) -> str:
    return roles.url("searcher_reader")


def fingerprint(roles: Roles) -> str:
    """Of all that could be written: rows, definitions, rights, roles and their settings, large objects, databases."""
    found = hashlib.sha256()
    url = roles.root.set(drivername="postgresql", database="searcher").render_as_string(hide_password=False)
    with closing(psycopg.connect(url)) as connection:
        cursor = connection.execute(
            "SELECT relname FROM pg_class WHERE relname ~ '^searcher' AND relkind IN ('r', 'S')"
        )
        tables = sorted(name for (name,) in cursor)
        catalogs = "class proc namespace authid auth_members db_role_setting largeobject_metadata database type trigger"
        catalogs += (
            " default_acl rewrite policy constraint attribute description extension publication replication_slots"
        )
        for table in [*tables, *(f"pg_{name}" for name in catalogs.split())]:
            rows = f"SELECT md5(string_agg(r::text, '' ORDER BY r::text)) FROM (SELECT * FROM {table}) AS r"
            found.update(repr((table, connection.execute(rows.encode()).fetchall())).encode())
    return found.hexdigest()


ATTACKS = """
INSERT INTO searcher_study SELECT * FROM searcher_study
INSERT INTO searcher_point VALUES (1, 0, 99, '{}')
INSERT INTO searcher_version VALUES ('9999')
UPDATE searcher_trial SET value = 0
UPDATE searcher_lease SET generation = generation + 1
UPDATE pg_authid SET rolsuper = true WHERE rolname = 'searcher_reader'
DELETE FROM searcher_trial
DELETE FROM pg_class
MERGE INTO searcher_trial t USING (SELECT 1) s ON true WHEN MATCHED THEN DELETE
TRUNCATE searcher_point
TRUNCATE searcher_study CASCADE
WITH d AS (DELETE FROM searcher_point RETURNING 1) SELECT * FROM d
EXPLAIN ANALYZE DELETE FROM searcher_point
PREPARE p AS DELETE FROM searcher_point; EXECUTE p
DO $$ BEGIN DELETE FROM searcher_point; END $$
DO $$ BEGIN EXECUTE 'DROP TABLE searcher_point'; END $$
SELECT * FROM searcher_trial FOR UPDATE
SELECT * FROM searcher_trial FOR KEY SHARE
SELECT * INTO copied FROM searcher_trial
SELECT * INTO TEMPORARY copied FROM searcher_trial
CREATE TABLE x (y integer)
CREATE TEMPORARY TABLE x (y integer)
CREATE UNLOGGED TABLE x (y integer)
CREATE TABLE x AS SELECT * FROM searcher_trial
CREATE VIEW x AS SELECT 1
CREATE TEMPORARY VIEW x AS SELECT 1
CREATE MATERIALIZED VIEW x AS SELECT 1
CREATE SEQUENCE x
CREATE TYPE x AS (y integer)
CREATE DOMAIN x AS integer
CREATE FUNCTION x() RETURNS integer LANGUAGE sql AS 'SELECT 1'
CREATE FUNCTION pg_temp.x() RETURNS integer LANGUAGE sql AS 'SELECT 1'
CREATE SCHEMA x
CREATE DATABASE x
CREATE ROLE x
CREATE PUBLICATION x FOR ALL TABLES
CREATE SUBSCRIPTION x CONNECTION 'dbname=searcher' PUBLICATION x
CREATE FOREIGN DATA WRAPPER x
CREATE TABLESPACE x LOCATION '/tmp'
CREATE EVENT TRIGGER x ON ddl_command_start EXECUTE FUNCTION suppress_redundant_updates_trigger()
CREATE TRIGGER x BEFORE INSERT ON searcher_point FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()
CREATE RULE x AS ON INSERT TO searcher_point DO INSTEAD NOTHING
CREATE POLICY x ON searcher_point
CREATE INDEX x ON searcher_trial (key)
CREATE STATISTICS x ON number, key FROM searcher_trial
DROP TABLE searcher_point
DROP VIEW leaderboard
DROP INDEX ix_searcher_trial_key
DROP SCHEMA public CASCADE
DROP DATABASE searcher
DROP ROLE searcher
DROP OWNED BY searcher
REASSIGN OWNED BY searcher TO searcher_reader
ALTER TABLE searcher_trial ADD COLUMN x integer
ALTER TABLE searcher_trial DISABLE TRIGGER ALL
ALTER TABLE searcher_trial OWNER TO searcher_reader
ALTER TABLE searcher_trial DROP CONSTRAINT ck_searcher_trial_state
ALTER VIEW leaderboard RENAME TO x
ALTER SCHEMA public RENAME TO x
ALTER DATABASE searcher SET default_transaction_read_only = on
ALTER ROLE searcher_reader SUPERUSER
ALTER ROLE searcher_reader CREATEDB
ALTER ROLE searcher_reader RESET temp_file_limit
ALTER ROLE searcher PASSWORD 'x'
ALTER ROLE ALL SET search_path = x
ALTER SYSTEM SET archive_command = 'touch /tmp/x'
ALTER DEFAULT PRIVILEGES FOR ROLE searcher GRANT ALL ON TABLES TO searcher_reader
GRANT searcher TO searcher_reader
GRANT pg_write_all_data TO searcher_reader
COMMENT ON TABLE searcher_trial IS 'x'
DO $$ BEGIN LOCK TABLE searcher_trial IN EXCLUSIVE MODE; END $$
REINDEX TABLE searcher_trial
CLUSTER searcher_trial USING searcher_trial_pkey
CHECKPOINT
LOAD '/tmp/x.so'
SET ROLE searcher
SET ROLE pg_write_server_files
SET SESSION AUTHORIZATION searcher
SET session_replication_role = replica
SET temp_file_limit = -1
SELECT set_config('role', 'searcher', false)
COPY searcher_point FROM '/etc/passwd'
COPY searcher_trial TO 'STOLEN'
COPY (SELECT 1) TO PROGRAM 'touch STOLEN'
COPY searcher_point FROM PROGRAM 'touch STOLEN'
SELECT nextval('searcher_study_id_seq')
SELECT setval('searcher_study_id_seq', 99)
SELECT lo_create(0)
SELECT lo_creat(-1)
SELECT lo_from_bytea(0, 'x')
SELECT lo_put(1, 0, 'x')
SELECT lo_open(1, 131072)
SELECT lo_unlink(1)
SELECT lo_import('/etc/passwd')
SELECT lo_export(1, 'STOLEN')
SELECT pg_read_file('postgresql.conf')
SELECT pg_read_binary_file('/etc/passwd')
SELECT pg_ls_dir('.')
SELECT * FROM pg_authid
SELECT pg_reload_conf()
SELECT pg_rotate_logfile()
SELECT pg_switch_wal()
SELECT pg_create_restore_point('x')
SELECT pg_create_physical_replication_slot('x')
SELECT pg_stat_reset()
SELECT pg_promote()
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'searcher'
SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE usename = 'searcher'
"""
ONLY_WARNED_OF = """
GRANT INSERT ON searcher_trial TO searcher_reader
GRANT ALL ON searcher_trial TO PUBLIC
GRANT ALL ON DATABASE searcher TO searcher_reader WITH GRANT OPTION
REVOKE SELECT ON searcher_trial FROM searcher_reader
ANALYZE searcher_trial
VACUUM FULL searcher_trial
"""


def test_the_reader_cannot_write(roles: Roles, reader: str, writer: str, tmp_path: Path) -> None:
    """Straight to the server, with its settings undone. Seen to fail with the REVOKE of large objects left out, with
    that of TEMPORARY, and with INSERT granted beside SELECT."""
    stolen = tmp_path / "stolen"
    attacks = ATTACKS.strip().replace("STOLEN", str(stolen)).splitlines()
    assert len(attacks) > 80
    before, allowed = fingerprint(roles), []
    with (
        closing(psycopg.connect(as_libpq(writer))) as victim,
        closing(psycopg.connect(as_libpq(reader), autocommit=True)) as connection,
    ):
        notices: list[str] = []
        connection.add_notice_handler(lambda notice: notices.append(str(notice.message_primary)))
        victim.execute("SELECT 1")
        connection.execute("SET default_transaction_read_only = off")
        for attack in attacks:
            try:
                connection.execute(attack.encode())
                allowed.append(attack)
            except psycopg.errors.InsufficientPrivilege:
                continue  # what is refused for another reason would show nothing: it fails the test
        for attack in ONLY_WARNED_OF.strip().splitlines():
            notices.clear()
            connection.execute(attack.encode())
            if not any(sign in notice for notice in notices for sign in WARNED):
                allowed.append(attack)
        victim.execute("SELECT 1")  # was not terminated
    assert allowed == []
    assert fingerprint(roles) == before
    assert not stolen.exists()


def as_libpq(url: str) -> str:
    return sa.make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


def test_the_reader_reads_and_is_refused_with_one_message(roles: Roles, reader: str, cli: Cli) -> None:
    """Of tables that a later version has made too. Seen to fail without the default privileges."""
    for command in (
        ("studies",),
        ("top", "old"),
        ("trial", "old", "0"),
        ("status", "old"),
        ("query", "SELECT COUNT(*) FROM searcher_trial"),
        ("export", "old", "old.csv"),
        ("db", "check"),
        ("db", "upgrade"),
    ):
        done = cli(*command, "--storage", reader)
        assert done.returncode == 0, (command, done.stderr)
        assert "canary" not in done.stdout + done.stderr
    before = fingerprint(roles)
    for command in (("launch", "--study-name", "mine", *FAST), ("resume", "old", "-q"), ("stop", "old")):
        refusal(cli(*command, "--storage", reader), 1, "permission denied for table searcher_")
    assert fingerprint(roles) == before


def refusal(done: Any, status: int, *words: str) -> None:
    """One line, without the password."""
    assert done.returncode == status
    assert done.stdout == ""
    said = done.stderr.strip()
    assert len(said.splitlines()) == 1 and said.startswith("searcher: ")
    assert all(word in said for word in words), said
    assert "canary" not in said and "Traceback" not in said


def test_the_writer_upgrades_searches_and_goes_on(roles: Roles, cli: Cli) -> None:
    """The tables that there were are the writer's own, as if it had made them."""
    url = roles.url("searcher")
    assert f"is at schema {HEAD}" in cli("db", "upgrade", "--storage", url).stdout
    launched = cli("launch", "--study-name", "new", "--storage", url, "--n-trials", "3", *FAST)
    assert launched.returncode == 0, launched.stderr
    assert "canary" not in launched.stdout + launched.stderr
    resumed = cli("resume", "new", "--storage", url, "--n-trials", "4", "-q")
    assert resumed.returncode == 0, resumed.stderr


# Bad input ------------------------------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


BAD = {
    "wrong password": (lambda r: r.url("searcher", password="canary2"), 1, "password authentication failed for user"),
    "no password": (lambda r: r.url("searcher", password=None), 1, "no password supplied"),
    "no such role": (lambda r: r.url("nobody"), 1, "password authentication failed"),
    "no such database": (lambda r: r.url("searcher", "nowhere"), 1, 'database "nowhere" does not exist'),
    "not this database": (lambda r: r.url("stranger"), 1, "permission denied for database"),
    "no rights in it": (lambda r: r.url("stranger", "closed"), 1, "this user may not read any schema of it"),
    "wrong port": (lambda _: f"postgresql://u:canary@127.0.0.1:{free_port()}/d", 1, "check host and port"),
    "wrong host": (lambda _: "postgresql://u:canary@nowhere.invalid/d", 1, "check the name of the host"),
    "wrong socket": (lambda _: "postgresql://u:canary@/d?host=/nowhere", 1, "No such file or directory"),
    "wrong option": (lambda _: "postgresql://u:canary@h/d?colour=red", 1, "colour"),
    "password as an option": (lambda _: "postgresql://u@/d?host=/nowhere&password=canary", 1, "No such file"),
    "unknown driver": (lambda _: "postgresql+pg8000://u:canary@h/d", 2, "'postgresql+pg8000' is not supported"),
    "unknown kind": (lambda _: "mysql://u:canary@h/d", 2, "'mysql' is not supported; use sqlite:///"),
    "an @ in the password": (lambda _: "postgresql://u:half@canary@h/d", 2, "write @ in a password as %40"),
    "no port": (lambda _: "postgresql://u:canary@h:port/d", 2, "not a database URL; use sqlite:///"),
    "no URL": (lambda _: "canary", 2, "not a database URL; use sqlite:///"),
}
COMMANDS = {
    "studies": ("studies",),
    "upgrade": ("db", "upgrade"),
    "check": ("db", "check"),
    "launch": ("launch", "--study-name", "s", *FAST),
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("what", BAD)
def test_a_bad_url_gets_one_message(roles: Roles, writer: str, cli: Cli, what: str, command: str) -> None:
    """Seen to fail with `parse_url` as it was: an unknown driver was a traceback, half a password was shown."""
    make, status, words = BAD[what]
    refusal(cli(*COMMANDS[command], "--storage", make(roles)), status, words)


def test_a_copy_names_the_database_that_fails(roles: Roles, writer: str, tmp_path: Path, cli: Cli) -> None:
    """Seen to fail with what is read at the source under the target's `plain_errors`."""
    good, bad = f"sqlite:///{tmp_path}/new.db", roles.url("searcher", "nowhere")
    for pair in ((bad, good), (writer, bad)):
        refusal(cli("db", "copy", *pair), 1, 'database "nowhere" does not exist')
    reader = roles.url("searcher_reader")
    refusal(cli("db", "copy", f"sqlite:///{tmp_path}/new.db", reader), 1, "there is no database")
    roles.run("REVOKE SELECT ON searcher_point FROM searcher_reader", "searcher")
    refusal(cli("db", "copy", reader, good), 1, "permission denied for table searcher_point", database.masked(reader))
    roles.run("GRANT SELECT ON searcher_point TO searcher_reader", "searcher")
    done = cli("db", "copy", reader, good, "--study", "old", "-f", "json")
    assert done.returncode == 0, done.stderr
    cli("launch", "--study-name", "mine", "--storage", good, "--n-trials", "2", *FAST)
    refused = cli("db", "copy", good, reader, "--study", "mine")
    refusal(refused, 1, "permission denied for table searcher_study", database.masked(reader))


def test_who_may_make_no_tables_is_told_so(roles: Roles, cli: Cli) -> None:
    refusal(cli("db", "upgrade", "--storage", roles.url("stranger", "empty")), 1, "permission denied for schema public")
    refusal(cli("studies", "--storage", roles.url("stranger", "empty")), 1, "has no searcher tables")


def test_who_may_not_read_the_tables_is_told_so(roles: Roles, writer: str, cli: Cli) -> None:
    roles.run("GRANT CONNECT ON DATABASE searcher TO stranger")
    roles.run("GRANT USAGE ON SCHEMA public TO stranger", "searcher")
    try:
        said = ("permission denied for table searcher_version", "docs/cluster.md has the roles")
        refusal(cli("top", "old", "--storage", roles.url("stranger")), 1, *said)
    finally:
        roles.run("REVOKE ALL ON SCHEMA public FROM stranger", "searcher")
        roles.run("REVOKE CONNECT ON DATABASE searcher FROM stranger")
