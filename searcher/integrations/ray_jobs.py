"""Run searches as jobs of a Ray cluster, through Ray's own client. They run on the cluster's head, near the database.

Everyone who may look at the cluster can see a job's command and environment, and the workers get the environment too.
So commands and variables with a password are refused; the head has the database's URL in SEARCHER_STORAGE.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from ray.exceptions import AuthenticationError, RayError
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

from searcher import SearcherError, UsageError
from workers.pools.ray_cluster import check_port

try:  # Ray's job client raises exceptions of these packages
    import aiohttp
    import requests
except ImportError:
    raise SearcherError("`searcher jobs` needs ray[default]: pip install 'activation-searcher[cluster]'") from None

ANSWER_SECONDS = 15.0  # how long the job server may take to answer
STOP_SECONDS = 30  # from SIGTERM, after which a driver finishes cleanly, to SIGKILL; Ray's default is 3
OVERRIDING = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")  # Ray's client prefers these variables to its argument

for _module in ("dashboard_sdk", "job.sdk"):  # they log every connection, whatever the level of their parents
    logging.getLogger(f"ray.dashboard.modules.{_module}").setLevel(logging.WARNING)

# As in the parser of URLs, a password may contain a slash or a blank.
_PASSWORD = re.compile(r"(://[^:@]*:)[^@]+@|((?:\b|ssl)password=)[^&\s]*", re.IGNORECASE)
_SECRET_NAME = re.compile(r"^PG|PASS(?!FILE)|TOKEN|SECRET|CREDENTIAL|_KEY$", re.IGNORECASE)


class JobsError(SearcherError):
    """The job server cannot be reached, denies access, or does not know the job."""


class BadJob(UsageError):
    """The request for a job is wrong."""


class _Client(JobSubmissionClient):
    """Ray's client with a time-out for answers; its own would wait for ever."""

    def _do_request(self, method: str, endpoint: str, **options: Any) -> requests.Response:
        answer: requests.Response = super()._do_request(method, endpoint, timeout=ANSWER_SECONDS, **options)
        return answer


class Jobs:
    """A Ray job server.

    Args:
        address: http://HOST:8265 for the job server, or the cluster's HOST:6379, ray://HOST:10001 or auto.

    Raises (the constructor and every method):
        JobsError: the server does not answer, the token is wrong, or there is no such job.
        BadJob: the address is of no known kind.
    """

    def __init__(self, address: str) -> None:
        self.address = _checked(address)
        with self._plain_errors(), _without(OVERRIDING):
            self._client = _Client(self.address)

    def submit(self, words: Sequence[str], variables: Mapping[str, str]) -> str:
        """Submit `searcher WORDS` and return the id of the job.

        Args:
            words: the arguments of the command.
            variables: environment variables of the job.
        """
        command = command_of(words)
        environment = {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS), "SEARCHER_RAY_ADDRESS": "auto"}
        environment |= public(variables)
        with self._plain_errors():
            job: str = self._client.submit_job(entrypoint=command, runtime_env={"env_vars": environment})
        return job

    def listed(self) -> list[dict[str, Any]]:
        """Return the facts of all submitted jobs, newest first."""
        with self._plain_errors():
            found = [facts(job) for job in self._client.list_jobs() if job.submission_id]
        return sorted(found, key=lambda job: str(job["started"]), reverse=True)

    def status(self, job: str) -> dict[str, Any]:
        """Return the facts of a job."""
        with self._plain_errors(job):
            return facts(self._client.get_job_info(job))

    def log(self, job: str) -> str:
        """Return the output of a job until now."""
        with self._plain_errors(job):
            return str(self._client.get_job_logs(job))

    def follow(self, job: str, write: Callable[[str], object]) -> str:
        """Call `write` with the output of a job as it comes. Return the job's status when it has ended."""

        async def tail() -> None:
            async for lines in self._client.tail_job_logs(job):
                write(lines)

        self.status(job)  # raises JobsError for an unknown job, for which Ray has an empty log
        with self._plain_errors(job):
            asyncio.run(tail())
        return self._ended(job)

    def stop(self, job: str) -> tuple[bool, str]:
        """Stop a job and wait until it has ended. Return whether it was running, and its status."""
        with self._plain_errors(job):
            running = bool(self._client.stop_job(job))
        return running, self._ended(job)

    def _ended(self, job: str) -> str:
        end = time.monotonic() + 2 * STOP_SECONDS
        while not JobStatus(status := self.status(job)["status"]).is_terminal():
            if time.monotonic() > end:
                raise JobsError(f"job {job} has not ended within {2 * STOP_SECONDS} s; it is {status}")
            time.sleep(0.2)
        return str(status)

    @contextmanager
    def _plain_errors(self, job: str = "") -> Iterator[None]:
        where = f"the Ray job server at {_shown(self.address)!r}"
        try:
            yield
        except AuthenticationError as error:
            raise JobsError(f"{where} denies access: {_about_token(str(error))}") from error
        except (requests.Timeout, TimeoutError) as error:
            raise JobsError(f"{where} does not answer within {ANSWER_SECONDS:g} s; is it a Ray head's?") from error
        except (ConnectionError, requests.RequestException, aiohttp.ClientError, RayError) as error:
            raise JobsError(
                f"no answer from {where}; is it a Ray head's dashboard, http://HOST:8265, and does it run?"
            ) from error
        except RuntimeError as error:
            if job and "404" in str(error):
                raise JobsError(
                    f"there is no job {job!r} at {_shown(self.address)}; see: searcher jobs list"
                ) from error
            raise JobsError(f"{where} could not do it: {str(error).splitlines()[0][:300]}") from error


def facts(job: JobDetails) -> dict[str, Any]:
    """Return the facts of a job that are shown, without passwords."""
    return {
        "id": job.submission_id,
        "status": str(job.status.value),
        "command": _shown(job.entrypoint),
        "started": _when(job.start_time),
        "ended": _when(job.end_time),
        "message": _shown(job.message or ""),
    }


def command_of(words: Sequence[str]) -> str:
    """Return the command line of a job.

    Raises:
        BadJob: there are no words, or one contains a password.
    """
    given = list(words[1:] if words[:1] == ["searcher"] else words)
    if not given:
        raise BadJob("no command to submit; write it after --, as in: searcher jobs submit -- launch --study-name NAME")
    if any(_PASSWORD.search(word) for word in given):
        raise BadJob(
            "the command holds a password, and a job's command is shown to everyone who may look at the cluster; name "
            "a file with ?passfile=FILE in the URL, or leave --storage out: the head has SEARCHER_STORAGE"
        )
    return shlex.join(["searcher", *given])


def public(variables: Mapping[str, str]) -> dict[str, str]:
    """Return the environment variables of a job.

    Raises:
        BadJob: a variable seems to be a secret.
    """
    for name, value in variables.items():
        if _SECRET_NAME.search(name) or _PASSWORD.search(value):
            raise BadJob(
                f"{name} looks like a secret, and a job's environment is shown to everyone who may look at the cluster "
                "and given to the workers; set it where the head is started"
            )
    return dict(variables)


def _checked(address: str) -> str:
    """Return the address after checking its form and that its port is open. Ray resolves HOST:6379 and auto."""
    scheme = urlsplit(address).scheme if "://" in address else ""
    if scheme not in ("http", "https", "ray", "") or not (scheme or ":" in address or address == "auto"):
        raise BadJob(f"{_shown(address)!r} is not the address of a job server; use http://HOST:8265, HOST:6379 or auto")
    check_port(address)
    return address.rstrip("/")


def _about_token(error: str) -> str:
    if "Missing authentication token" in error:
        return "it asks for a token; set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH=FILE, as on the cluster"
    if "Invalid authentication token" in error:
        return "the token is not the cluster's; see RAY_AUTH_TOKEN_PATH"
    return f"{error.partition('. ')[0]}; set RAY_AUTH_TOKEN_PATH to the file that holds the cluster's token"


def _shown(text: str) -> str:
    return _PASSWORD.sub(lambda found: f"{found[1]}***@" if found[1] else f"{found[2]}***", text)


def _when(milliseconds: int | None) -> str | None:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(" ", "seconds") if milliseconds else None


@contextmanager
def _without(names: Sequence[str]) -> Iterator[None]:
    hidden = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(hidden)
