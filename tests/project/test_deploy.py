"""The deploy files, parsed; no container is run. The password's way into the database is tried on a real PostgreSQL.

A check takes the parsed compose file, the Kubernetes manifests, or the Dockerfile's text, and returns what breaks a
rule. Each is also given broken copies, to show that it can fail.
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

from searcher.store.database import StoreError
from searcher.store.query import run_query
from searcher.store.store import Store
from tests.support import ROOT
from tests.support.made import create
from tests.support.postgres import Server

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


def heads_that_forget(compose: Compose) -> list[str]:
    """Heads, where drivers run, whose journals of outages end with the container."""
    found = []
    for name, service in ray_nodes(compose).items():
        kept = dict(volume.split(":")[:2][::-1] for volume in service.get("volumes", []))
        state = environment(service).get("SEARCHER_STATE")
        if "--head" in command(service) and kept.get(str(state), ".").startswith((".", "/")):
            found.append(f"{name} keeps {state} in no volume")
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
    (heads_that_forget, "variable", lambda c: c["services"]["head"]["environment"].pop("SEARCHER_STATE")),
    (heads_that_forget, "elsewhere", lambda c: set_env(c, "head", SEARCHER_STATE="/home/searcher")),
    (heads_that_forget, "volume", lambda c: c["services"]["head"].pop("volumes")),
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


# Kubernetes -----------------------------------------------------------------------------------------------------------

Manifests = list[dict[str, Any]]

MANIFESTS: Manifests = [
    manifest for path in sorted((ROOT / "deploy").glob("*.yaml")) for manifest in yaml.safe_load_all(path.read_text())
]
PART_OF = "app.kubernetes.io/part-of"

# The fields of KubeRay's resources that are used, as its reference of version 1.7 has them.
RAY_FIELDS = {
    "spec": {"rayVersion", "authOptions", "enableInTreeAutoscaling", "autoscalerOptions", "headGroupSpec"}
    | {"workerGroupSpecs"},
    "authOptions": {"mode", "secretName"},
    "autoscalerOptions": {"idleTimeoutSeconds", "upscalingMode", "resources", "securityContext", "volumeMounts"},
    "headGroupSpec": {"serviceType", "rayStartParams", "template"},
    "workerGroupSpec": {"groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"},
    "job": {"clusterSelector", "submissionMode", "entrypoint", "submitterConfig", "submitterPodTemplate"},
}


def of_kind(manifests: Manifests, kind: str) -> Manifests:
    return [manifest for manifest in manifests if manifest["kind"] == kind]


def ray_cluster(manifests: Manifests) -> dict[str, Any]:
    (cluster,) = of_kind(manifests, "RayCluster")
    return dict(cluster["spec"])


def worker_groups(manifests: Manifests) -> list[dict[str, Any]]:
    return list(ray_cluster(manifests)["workerGroupSpecs"])


def templates(manifests: Manifests) -> dict[str, dict[str, Any]]:
    """Every pod template, by what it is."""
    found = {"head": ray_cluster(manifests)["headGroupSpec"]["template"]}
    found |= {f"{group['groupName']} worker": group["template"] for group in worker_groups(manifests)}
    found |= {f"submitter of {job['metadata']['name']}": job["spec"]["submitterPodTemplate"] for job in jobs(manifests)}
    return found | {kept["metadata"]["name"]: kept["spec"]["template"] for kept in of_kind(manifests, "StatefulSet")}


def jobs(manifests: Manifests) -> Manifests:
    return of_kind(manifests, "RayJob")


def containers(manifests: Manifests) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, template in templates(manifests).items():
        for container in template["spec"].get("initContainers", []) + template["spec"]["containers"]:
            yield name, container


def variables(container: Mapping[str, Any]) -> dict[str, Any]:
    """Environment of a container: a text, or where it comes from."""
    return {entry["name"]: entry.get("value", entry.get("valueFrom")) for entry in container.get("env", [])}


def manifests_with_secrets(manifests: Manifests) -> list[str]:
    found = [f"a password in {text!r}" for text in texts(manifests) if re.search(r"://[^/@\s]*:[^/@\s]+@", text)]
    found += [f"a password in {text!r}" for text in texts(manifests) if re.search(r"(?i)password\s+'\w", text)]
    found += [f"the secret {secret['metadata']['name']} is written out" for secret in of_kind(manifests, "Secret")]
    for name, container in containers(manifests):
        if container.get("envFrom"):
            found.append(f"{name}: nobody sees what envFrom brings")
        for variable, value in variables(container).items():
            secret = re.search(r"PASS|TOKEN|SECRET|KEY|CREDENTIAL", variable)
            if secret and not (isinstance(value, dict) and "secretKeyRef" in value):
                found.append(f"{name}: {variable} comes from no secret")
    return found


def manifests_that_publish(manifests: Manifests) -> list[str]:
    found = [
        f"{m['kind']} {m['metadata']['name']}" for m in manifests if m["kind"] in ("Ingress", "Gateway", "HTTPRoute")
    ]
    for service in of_kind(manifests, "Service"):
        spec, name = service["spec"], service["metadata"]["name"]
        published = spec.get("type", "ClusterIP") != "ClusterIP" or spec.get("externalIPs")
        found += [f"the service {name} is published"] if published else []
    head = ray_cluster(manifests)["headGroupSpec"]
    if head.get("serviceType") != "ClusterIP" or head.get("enableIngress") or head.get("headService"):
        found.append("the head is published")
    found += [f"{n} is on its host's network" for n, t in templates(manifests).items() if t["spec"].get("hostNetwork")]
    for name, container in containers(manifests):
        found += [f"{name} has a port of its host" for port in container.get("ports", []) if "hostPort" in port]
    return found


def manifests_without_token(manifests: Manifests) -> list[str]:
    options = ray_cluster(manifests).get("authOptions", {})
    found = [] if options.get("mode") == "token" else ["the cluster asks for no token"]
    for name, container in containers(manifests):
        if name == "postgres":
            continue
        given = variables(container)
        if given.get("RAY_AUTH_MODE") != "token":
            found.append(f"{name} asks for no token")
        wanted = {"secretKeyRef": {"name": options.get("secretName"), "key": "auth_token"}}
        if given.get("RAY_AUTH_TOKEN") != wanted:
            found.append(f"{name} has not the cluster's token")
    return found


def manifests_unpinned(manifests: Manifests) -> list[str]:
    found = [
        f"{n}: {c['image']!r} is not pinned" for n, c in containers(manifests) if not re.search(PINNED, c["image"])
    ]
    (pin,) = re.findall(r"^ray==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    ours = {container["image"] for name, container in containers(manifests) if name != "postgres"}
    if ours != {services(COMPOSE)["head"]["image"]} or ray_cluster(manifests)["rayVersion"] != pin:
        found.append("another image or Ray than elsewhere")
    return found


def manifests_with_privileges(manifests: Manifests) -> list[str]:
    found = []
    for name, template in templates(manifests).items():
        pod = template["spec"].get("securityContext", {})
        if not pod.get("runAsNonRoot") or not pod.get("runAsUser") or template["spec"].get("hostPID"):
            found.append(f"{name} runs as root, or may")
        if pod.get("seccompProfile") != {"type": "RuntimeDefault"}:
            found.append(f"{name} may call everything of the kernel's")
        if name != "head" and template["spec"].get("automountServiceAccountToken") is not False:
            found.append(f"{name} may ask the Kubernetes API")  # the autoscaler, beside the head, must
    contexts = [(name, container.get("securityContext", {})) for name, container in containers(manifests)]
    contexts.append(("autoscaler", ray_cluster(manifests)["autoscalerOptions"].get("securityContext", {})))
    for name, context in contexts:
        wanted = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
        if context != wanted:
            found.append(f"{name} has privileges: {context}")
    return found


def manifests_without_limits(manifests: Manifests) -> list[str]:
    found = []
    for name, container in containers(manifests):
        given = container.get("resources", {})
        for kind in ("requests", "limits"):
            found += [f"{name}: no {kind} of {r}" for r in ("cpu", "memory") if r not in given.get(kind, {})]
        if not name.startswith("submitter") and "readinessProbe" not in container:
            found.append(f"{name}: nobody knows when it is ready")
    if not ray_cluster(manifests).get("enableInTreeAutoscaling"):
        found.append("nothing scales the workers")
    for group in worker_groups(manifests):
        if not group["minReplicas"] <= group["replicas"] <= group["maxReplicas"] or group["maxReplicas"] > 100:
            found.append(f"{group['groupName']}: has no bounds")
    return found


def manifests_whose_workers_have_the_database(manifests: Manifests) -> list[str]:
    found = [] if worker_groups(manifests) else ["there are no workers"]
    for name, container in containers(manifests):
        if name.endswith("worker") or name.startswith("submitter"):
            known = [key for key in variables(container) if re.match("SEARCHER_STORAGE|PG|POSTGRES", key)]
            found += [f"{name} has {key}" for key in known]
    for name, template in templates(manifests).items():
        secret = [volume["name"] for volume in template["spec"].get("volumes", []) if "secret" in volume]
        found += [f"{name} mounts {volume}" for volume in secret if name.endswith("worker")]
    if ray_cluster(manifests)["headGroupSpec"]["rayStartParams"].get("num-cpus") != "0":
        found.append("the head runs trials beside the password")
    return found


def manifests_that_let_in(manifests: Manifests) -> list[str]:
    """What NetworkPolicies must say. Without one that selects it, everything reaches a pod."""
    policies = {policy["metadata"]["name"]: policy["spec"] for policy in of_kind(manifests, "NetworkPolicy")}
    found = [f"{n} is selected by no policy" for n, t in templates(manifests).items() if PART_OF not in labels(t)]
    everything = {"podSelector": {"matchLabels": {PART_OF: "searcher"}}, "policyTypes": ["Ingress"]}
    if everything not in policies.values():
        found.append("nothing is closed to begin with")
    head = {"podSelector": {"matchLabels": {"ray.io/cluster": "searcher", "ray.io/node-type": "head"}}}
    (database,) = [t for name, t in templates(manifests).items() if name == "postgres"]
    for name, policy in policies.items():
        selected = policy["podSelector"]["matchLabels"]
        for rule in policy.get("ingress", []):
            if not rule.get("from") or any(set(peer) - {"podSelector", "namespaceSelector"} for peer in rule["from"]):
                found.append(f"{name} lets the world in")
            if selected.items() <= labels(database).items() and rule.get("from") != [head]:
                found.append(f"{name} lets others than the head reach the database")
    workers = {"matchLabels": {"ray.io/cluster": "searcher", "ray.io/node-type": "worker"}}
    of_workers = [
        spec for spec in policies.values() if spec["podSelector"] == workers and "Egress" in spec["policyTypes"]
    ]
    if not of_workers or any("ipBlock" in str(rule) or not rule.get("to") for rule in of_workers[0].get("egress", [])):
        found.append("workers reach everything")
    return found


def labels(template: Mapping[str, Any]) -> dict[str, str]:
    return dict(template.get("metadata", {}).get("labels", {}))


def manifests_whose_head_forgets(manifests: Manifests) -> list[str]:
    """Journals of outages lie on a volume that outlives the pod."""
    pod, head = templates(manifests)["head"]["spec"], head_container(manifests)
    claims = {claim["metadata"]["name"] for claim in of_kind(manifests, "PersistentVolumeClaim")}
    kept = {
        volume["name"]
        for volume in pod["volumes"]
        if volume.get("persistentVolumeClaim", {}).get("claimName") in claims
    }
    places = {mount["mountPath"] for mount in head["volumeMounts"] if mount["name"] in kept}
    state = variables(head).get("SEARCHER_STATE")
    return [] if state in places else [f"the head keeps {state} in no volume that stays"]


def manifests_undeclared(manifests: Manifests) -> list[str]:
    """Names that nothing defines, and fields that KubeRay does not know: Kubernetes would drop them in silence."""
    found = []
    for name, template in templates(manifests).items():
        there = {volume["name"] for volume in template["spec"].get("volumes", [])}
        there |= {"data"} if name == "postgres" else set()
        for container in template["spec"]["containers"]:
            missing = {mount["name"] for mount in container.get("volumeMounts", [])} - there
            found += [f"{name} mounts {volume}, which is not there" for volume in missing]
    cluster = ray_cluster(manifests)
    parts = [("spec", cluster)] + [(part, cluster[part]) for part in RAY_FIELDS if part in cluster]
    parts += [("workerGroupSpec", group) for group in worker_groups(manifests)]
    parts += [("job", job["spec"]) for job in jobs(manifests)]
    found += [f"{part} has no field {field}" for part, given in parts for field in set(given) - RAY_FIELDS[part]]
    (name,) = [cluster["metadata"]["name"] for cluster in of_kind(manifests, "RayCluster")]
    wrong = [job["spec"]["clusterSelector"] for job in jobs(manifests)]
    return found + [f"a job selects {selector}" for selector in wrong if selector != {"ray.io/cluster": name}]


def head_container(manifests: Manifests) -> dict[str, Any]:
    found: dict[str, Any] = ray_cluster(manifests)["headGroupSpec"]["template"]["spec"]["containers"][0]
    return found


def worker_pod(manifests: Manifests) -> dict[str, Any]:
    found: dict[str, Any] = worker_groups(manifests)[0]["template"]["spec"]
    return found


def policy(manifests: Manifests, name: str) -> dict[str, Any]:
    (found,) = [m["spec"] for m in of_kind(manifests, "NetworkPolicy") if m["metadata"]["name"] == name]
    return dict(found)


def add_env(container: Mapping[str, Any], **given: str) -> None:
    container["env"].extend({"name": name, "value": value} for name, value in given.items())


MANIFESTS_BROKEN: list[tuple[Callable[[Manifests], list[str]], str, Callable[[Manifests], object]]] = [
    (
        manifests_with_secrets,
        "URL",
        lambda m: add_env(head_container(m), DB="postgresql://searcher:hunter2@postgres/s"),
    ),
    (manifests_with_secrets, "literal", lambda m: add_env(worker_pod(m)["containers"][0], RAY_AUTH_TOKEN="f00d")),
    (manifests_with_secrets, "kind", lambda m: m.append({"kind": "Secret", "metadata": {"name": "s"}})),
    (manifests_with_secrets, "envFrom", lambda m: head_container(m).update(envFrom=[{"secretRef": {"name": "s"}}])),
    (
        manifests_with_secrets,
        "SQL",
        lambda m: of_kind(m, "ConfigMap")[0]["data"].update(a="CREATE ROLE s PASSWORD 'hunter2'"),
    ),
    (manifests_that_publish, "load balancer", lambda m: of_kind(m, "Service")[0]["spec"].update(type="LoadBalancer")),
    (manifests_that_publish, "head", lambda m: ray_cluster(m)["headGroupSpec"].update(serviceType="NodePort")),
    (manifests_that_publish, "host", lambda m: worker_pod(m).update(hostNetwork=True)),
    (manifests_that_publish, "port", lambda m: head_container(m)["ports"][0].update(hostPort=6379)),
    (manifests_that_publish, "ingress", lambda m: m.append({"kind": "Ingress", "metadata": {"name": "i"}})),
    (manifests_without_token, "off", lambda m: ray_cluster(m)["authOptions"].update(mode="disabled")),
    (manifests_without_token, "worker", lambda m: worker_pod(m)["containers"][0]["env"].pop(0)),
    (manifests_without_token, "another", lambda m: ray_cluster(m)["authOptions"].update(secretName="other")),
    (
        manifests_without_token,
        "submitter",
        lambda m: templates(m)["submitter of digits"]["spec"]["containers"][0].pop("env"),
    ),
    (manifests_unpinned, "latest", lambda m: head_container(m).update(image="searcher:latest")),
    (manifests_unpinned, "no tag", lambda m: worker_pod(m)["containers"][0].update(image="searcher")),
    (manifests_unpinned, "Ray", lambda m: of_kind(m, "RayCluster")[0]["spec"].update(rayVersion="2.59.0")),
    (manifests_with_privileges, "root", lambda m: worker_pod(m)["securityContext"].update(runAsUser=0)),
    (manifests_with_privileges, "root or not", lambda m: worker_pod(m)["securityContext"].pop("runAsNonRoot")),
    (manifests_with_privileges, "seccomp", lambda m: worker_pod(m)["securityContext"].pop("seccompProfile")),
    (manifests_with_privileges, "disk", lambda m: head_container(m)["securityContext"].pop("readOnlyRootFilesystem")),
    (manifests_with_privileges, "capabilities", lambda m: head_container(m)["securityContext"].pop("capabilities")),
    (manifests_with_privileges, "API", lambda m: worker_pod(m).pop("automountServiceAccountToken")),
    (manifests_with_privileges, "autoscaler", lambda m: ray_cluster(m)["autoscalerOptions"].pop("securityContext")),
    (manifests_without_limits, "memory", lambda m: head_container(m)["resources"]["limits"].pop("memory")),
    (manifests_without_limits, "none", lambda m: worker_pod(m)["containers"][0].pop("resources")),
    (manifests_without_limits, "probe", lambda m: worker_pod(m)["containers"][0].pop("readinessProbe")),
    (manifests_without_limits, "scaling", lambda m: of_kind(m, "RayCluster")[0]["spec"].pop("enableInTreeAutoscaling")),
    (manifests_without_limits, "bounds", lambda m: worker_groups(m)[0].update(maxReplicas=0)),
    (
        manifests_whose_workers_have_the_database,
        "password",
        lambda m: add_env(worker_pod(m)["containers"][0], PGPASSWORD="x"),
    ),
    (
        manifests_whose_workers_have_the_database,
        "volume",
        lambda m: worker_pod(m)["volumes"].append({"name": "s", "secret": {"secretName": "searcher-database"}}),
    ),
    (
        manifests_whose_workers_have_the_database,
        "head",
        lambda m: ray_cluster(m)["headGroupSpec"]["rayStartParams"].pop("num-cpus"),
    ),
    (manifests_that_let_in, "open", lambda m: m.remove(of_kind(m, "NetworkPolicy")[0])),
    (manifests_that_let_in, "workers", lambda m: policy(m, "searcher-database")["ingress"][0]["from"][0].clear()),
    (manifests_that_let_in, "anybody", lambda m: policy(m, "searcher-job-server")["ingress"][0].pop("from")),
    (
        manifests_that_let_in,
        "internet",
        lambda m: policy(m, "searcher-ray")["ingress"][0]["from"].append({"ipBlock": {"cidr": "0.0.0.0/0"}}),
    ),
    (manifests_that_let_in, "label", lambda m: templates(m)["cpu worker"]["metadata"]["labels"].clear()),
    (manifests_that_let_in, "out", lambda m: policy(m, "searcher-workers")["egress"].append({})),
    (manifests_whose_head_forgets, "claim", lambda m: m.remove(of_kind(m, "PersistentVolumeClaim")[0])),
    (manifests_whose_head_forgets, "mount", lambda m: head_container(m)["volumeMounts"].pop()),
    (manifests_whose_head_forgets, "variable", lambda m: add_env(head_container(m), SEARCHER_STATE="/tmp/state")),
    (manifests_undeclared, "volume", lambda m: worker_pod(m)["volumes"].clear()),
    (manifests_undeclared, "field", lambda m: worker_groups(m)[0].update(minReplica=1)),
    (manifests_undeclared, "cluster", lambda m: of_kind(m, "RayCluster")[0]["metadata"].update(name="other")),
]


@pytest.mark.parametrize(
    "check", dict.fromkeys(check for check, *_ in MANIFESTS_BROKEN), ids=lambda check: check.__name__
)
def test_the_manifests_keep_to_the_rules(check: Callable[[Manifests], list[str]]) -> None:
    assert check(MANIFESTS) == []


@pytest.mark.parametrize(
    ("check", "damage"),
    [pytest.param(check, damage, id=f"{check.__name__}-{what}") for check, what, damage in MANIFESTS_BROKEN],
)
def test_a_broken_manifest_is_caught(
    check: Callable[[Manifests], list[str]], damage: Callable[[Manifests], object]
) -> None:
    broken = json.loads(json.dumps(MANIFESTS))
    damage(broken)
    assert check(broken) != []


def test_ray_and_searcher_take_the_options_of_the_manifests() -> None:
    import typer
    from ray.scripts.scripts import cli

    from cli import app

    cluster = ray_cluster(MANIFESTS)
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        options = [f"--{name}={value}" for name, value in group["rayStartParams"].items()]
        cli.commands["start"].make_context("start", options)
    for job in jobs(MANIFESTS):
        name, *words = shlex.split(job["spec"]["entrypoint"])
        assert name == "searcher"
        command: Any = typer.main.get_command(app)
        command.commands[words[0]].make_context(words[0], words[1:])  # raises NoSuchOption


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
    state = environment(services(COMPOSE)["head"])["SEARCHER_STATE"]
    assert f"install --directory --mode 1777 {state}" in DOCKERFILE, "a new volume is as what it covers in the image"


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
    secrets: Path, new_folder: Callable[[], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The compose file's SQL and URL on a PostgreSQL that asks for passwords, as its container does."""
    directory = new_folder()
    pgpass = secrets / "pgpass"
    pgpass.write_text(pgpass.read_text().replace("postgres:", f"{directory}:", 1))  # here a socket, there a host
    (url,) = {
        given["SEARCHER_STORAGE"] for name in ("migrate", "head") if (given := environment(services(COMPOSE)[name]))
    }
    url = url.replace("@postgres/", "@/").replace(PGPASS, quote(str(pgpass))) + f"&host={quote(str(directory))}"
    server = Server(directory, sockets=directory)
    try:
        server.psql(COMPOSE["configs"]["make_database"]["content"].replace(PGPASS, str(pgpass)))
        rules = directory / "pg_hba.conf"
        rules.write_text("local searcher searcher scram-sha-256\n" + rules.read_text())
        server.psql("SELECT pg_reload_conf()")

        store = Store(url, create=True)
        create(store, "s", 1, "val_loss", {}, {})
        store.close()
        assert run_query(url, "SELECT name FROM searcher_study") == [{"name": "s"}]
        assert run_query(url, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user") == [{"rolsuper": False}]
        assert pgpass.read_text().split(":")[-1].strip() not in store.shown_url

        pgpass.write_text(f"{pgpass.read_text().strip()}x\n")
        with pytest.raises(StoreError, match="password authentication failed"):
            Store(url)

        server.psql("DROP DATABASE searcher")
        server.psql("DROP ROLE searcher")
        monkeypatch.setenv("SEARCHER_PASSWORD", "of the manifests")
        (made,) = of_kind(MANIFESTS, "ConfigMap")
        server.psql(made["data"]["make_database.sql"])
        monkeypatch.setenv("PGPASSWORD", "of the manifests")
        url = variables(head_container(MANIFESTS))["SEARCHER_STORAGE"].replace("@postgres/", "@/")
        Store(f"{url}?host={quote(str(directory))}", create=True).close()
    finally:
        server.close()
