"""Download published data sets: resume interrupted downloads, verify the published checksum, unpack safely."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import shutil
import ssl
import tarfile
import tempfile
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from workers.contract import WorkersError
from workers.tasks.images.reading import in_a_line

TRIES = 4  # connections for one file; each continues where the one before it ended
TIMEOUT = 30  # seconds without a byte
BLOCK = 1 << 18  # bytes read at a time
DAMAGED = (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, ValueError, OverflowError)  # of an archive
BROKEN = (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError, ssl.SSLError)

Report = Callable[[str, int, int | None], None]  # the file, how many bytes are downloaded, the total if known


@dataclass(frozen=True, slots=True)
class Download:
    """A published file.

    Attributes:
        url: its address.
        md5: its published checksum.
        unpacks_to: the folder in it, if it is an archive.
    """

    url: str
    md5: str
    unpacks_to: str = ""

    @property
    def file(self) -> str:
        """The name of the file."""
        return self.url.rpartition("/")[2]


_FASHION = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"

# Sources of the checksums: https://github.com/zalandoresearch/fashion-mnist, "Get the Data", and
# https://www.cs.toronto.edu/~kriz/cifar.html.
DOWNLOADS: Mapping[str, tuple[Download, ...]] = {
    "fashion-mnist": (
        Download(f"{_FASHION}/train-images-idx3-ubyte.gz", "8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
        Download(f"{_FASHION}/train-labels-idx1-ubyte.gz", "25c81989df183df01b3e8a0aad5dffbe"),
        Download(f"{_FASHION}/t10k-images-idx3-ubyte.gz", "bef4ecab320f06d8554ea6380940ec79"),
        Download(f"{_FASHION}/t10k-labels-idx1-ubyte.gz", "bb300cfdad3c16e7a12a480ee83cd310"),
    ),
    "cifar10": (
        Download(
            "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
            "c58f30108f718f92721af3b95e74349a",
            "cifar-10-batches-py",
        ),
    ),
    "cifar100": (
        Download(
            "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
            "eb9058c3a382ffc7106e4002c42a8d85",
            "cifar-100-python",
        ),
    ),
}


def fetch(name: str, folder: Path, report: Report, mirror: str = "") -> Path:
    """Download a data set into `folder/name`.

    Args:
        name: a key of `DOWNLOADS`.
        report: called with the progress.
        mirror: the URL of a folder with the same files, to download from there.

    Returns:
        The folder with the files.

    Raises:
        WorkersError: the data set is unknown, there is no connection, a checksum is wrong, an archive has members that
            it must not have, or the disk is full.
    """
    from filelock import FileLock, Timeout

    if name not in DOWNLOADS:
        raise WorkersError(f"there is nothing to fetch for {name!r}; these are fetched: {', '.join(DOWNLOADS)}")
    target = folder / name
    try:
        target.mkdir(parents=True, exist_ok=True)
        with FileLock(target / ".fetch.lock", timeout=0):
            for download in DOWNLOADS[name]:
                url = f"{mirror.rstrip('/')}/{download.file}" if mirror else download.url
                _fetch_file(download, url, target, report)
    except Timeout:
        raise WorkersError(f"another process is fetching {name} into {target}") from None
    except OSError as error:
        raise WorkersError(f"cannot write to {target}: {error.strerror or error}; the files in it are kept") from error
    return target


def _fetch_file(download: Download, url: str, target: Path, report: Report) -> None:
    file = target / download.file
    if (target / (download.unpacks_to or download.file)).exists():
        return  # it is complete, because it gets this name at the end
    unfinished = file.with_name(f"{file.name}.part")
    _download(url, unfinished, report)
    if (found := _md5(unfinished)) != download.md5:
        unfinished.unlink()
        raise WorkersError(
            f"{url} is not what was published: its md5 is {found}, not {download.md5}; it has been deleted. Fetch it "
            "again, or from elsewhere (--url)"
        )
    if download.unpacks_to:
        _unpack(unfinished, target, download.unpacks_to)
        unfinished.unlink()
    else:
        unfinished.rename(file)


def _download(url: str, file: Path, report: Report) -> None:
    """Download a file completely, with several connections if necessary. After an error, the part so far is kept."""
    for attempt in range(1, TRIES + 1):
        try:
            return _receive(url, file, report)
        except urllib.error.HTTPError as error:
            raise WorkersError(f"{url}: the server answers {error.code} {error.reason}") from error
        except ValueError as error:  # it is not a URL
            raise WorkersError(f"{url}: {error}") from error
        except BROKEN as error:
            why = getattr(error, "reason", error)
            if attempt == TRIES:
                here = file.stat().st_size if file.exists() else 0
                raise WorkersError(
                    f"{url}: {why}; {here} bytes are downloaded, and the next fetch continues after them"
                ) from error
    return None


def _receive(url: str, file: Path, report: Report) -> None:
    """Download the missing part of a file with one connection; the whole file if the server does not support parts."""
    if not url.startswith(("http://", "https://")):
        raise WorkersError(f"{url}: a URL must begin with http:// or https://")
    here = file.stat().st_size if file.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={here}-"} if here else {})  # noqa: S310
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT)  # noqa: S310
    except urllib.error.HTTPError as error:
        if error.code == 416 and here:  # nothing is missing; the checksum tells whether that is right
            return
        raise
    with response, file.open("ab" if response.status == 206 else "wb") as out:
        here = out.tell()
        length = response.headers["Content-Length"]
        _copy(response, out, file.name.removesuffix(".part"), here + int(length) if length else None, report)


def _copy(response: http.client.HTTPResponse, out: BinaryIO, name: str, total: int | None, report: Report) -> None:
    report(name, out.tell(), total)
    while block := response.read(BLOCK):
        out.write(block)
        report(name, out.tell(), total)
    if total is not None and out.tell() != total:
        raise ConnectionError(f"the connection was cut after {out.tell()} of {total} bytes")


def _md5(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _check_members(tar: tarfile.TarFile, folder: str, archive: Path, free: int) -> None:
    """Raise WorkersError if a member is not a file or folder in `folder`, or all claim more than `free` bytes."""
    claimed = 0
    if not tar.getmembers():
        raise tarfile.ReadError("it is empty")
    for member in tar:
        if not (member.isfile() or member.isdir()) or Path(member.name).parts[:1] != (folder,):
            raise WorkersError(
                f"{archive} is refused: its member {member.name!r} is not a file or folder in {folder!r}"
            )
        claimed += member.size
        if member.size < 0 or claimed > free:
            raise WorkersError(
                f"{archive} is refused: up to its member {member.name!r} it claims {claimed:,} bytes, and {free:,} are "
                "free on the disk"
            )


def _unpack(archive: Path, target: Path, folder: str) -> None:
    """Unpack an archive that contains the folder `folder` only. The folder appears in `target` when it is complete."""
    unfinished = Path(tempfile.mkdtemp(prefix=".unpack.", dir=target))
    try:
        with tarfile.open(archive, "r:gz") as tar:
            _check_members(tar, folder, archive, shutil.disk_usage(target).free)
            tar.extractall(unfinished, filter="data")  # refuses names that lead out of the folder
        (unfinished / folder).rename(target / folder)
    except DAMAGED as error:
        raise WorkersError(f"{archive} cannot be unpacked: {in_a_line(error)}") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
