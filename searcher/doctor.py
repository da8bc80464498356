"""Check what this machine can do, for `searcher doctor`."""

from __future__ import annotations

import os
import platform
import sqlite3
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version

from searcher import SearcherError, __version__
from searcher.findings import Finding

PACKAGES = ("torch", "ray", "optuna", "sqlalchemy", "alembic", "typer", "scikit-learn")
OPTIONAL = {"psycopg": "postgres", "pyarrow": "parquet", "prometheus-client": "metrics"}  # by package: its extra


def examine(storage: str) -> Iterator[Finding]:
    """Check versions, devices, Ray, storage and data sets. Start nothing and write nothing."""
    yield Finding("searcher", True, f"{__version__}, Python {platform.python_version()}, {platform.platform()}")
    for package in PACKAGES:
        try:
            yield Finding(package, True, version(package))
        except PackageNotFoundError:
            yield Finding(package, False, f"not installed; pip install {package}")
    for package, extra in OPTIONAL.items():
        try:
            yield Finding(package, True, version(package))
        except PackageNotFoundError:
            note = f"not installed, which is fine unless you need it: pip install 'activation-searcher[{extra}]'"
            yield Finding(package, True, note)
    for what, look in (("devices", _devices), ("ray cluster", _ray), ("ray folder", _folder), ("datasets", _datasets)):
        yield _examined(what, look)
    yield _examined("storage", lambda: _storage(storage))


def _examined(what: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(what, True, look())
    except (SearcherError, ImportError, OSError, ValueError) as error:
        return Finding(what, False, str(error))


def _devices() -> str:
    import torch

    from workers.pools.base import usable_cpus

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return f"{usable_cpus()} CPU cores; GPUs: {', '.join(gpus) or 'none, children train on the CPU'}"


def _ray() -> str:
    address = os.environ.get("RAY_ADDRESS")
    token = "token authentication" if os.environ.get("RAY_AUTH_MODE") == "token" else "RAY_AUTH_MODE is not set"
    return f"RAY_ADDRESS {address}, {token}" if address else f"none named (--address), Ray starts here; {token}"


def _folder() -> str:
    """Describe the folder that a Ray on this machine would use."""
    from workers.contract import WorkersError
    from workers.pools.ray_local import folder

    try:
        place, note = folder()
    except WorkersError as error:
        raise ValueError(str(error)) from error
    return note or f"{place / 'ray'}"


def _datasets() -> str:
    """Look for the files of data sets without reading them; `searcher data check NAME` reads them."""
    from workers.contract import WorkersError
    from workers.tasks.images.sources import KNOWN, find

    found = []
    for name, known in KNOWN.items():
        try:
            found.append(f"{name} ({find(name).folder})" if known.layouts else f"{name} ({known.train:,} images)")
        except WorkersError:
            found.append(f"{name} (not here; searcher data fetch {name})")
    return ", ".join(found)


def _storage(url: str) -> str:
    from searcher.store.database import is_there, masked
    from searcher.store.store import Store

    if not is_there(url):
        return f"{masked(url)}: not there yet, the first launch makes it; SQLite {sqlite3.sqlite_version}"
    store = Store(url)
    try:
        return f"{masked(url)}: {len(store.studies())} studies"
    finally:
        store.close()
