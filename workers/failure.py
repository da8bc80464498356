"""Turn an exception into the outcome of a job, with the health of the process in which it was raised."""

from __future__ import annotations

import errno
import re
import sysconfig
import traceback
from collections.abc import Iterator
from pathlib import Path

from workers.contract import Health, Outcome, Verdict, WorkersError
from workers.text import LIMIT, limited

FRAMES = 5  # how many of the last frames of a traceback are shown
HERE = Path(__file__).resolve().parents[1]
OTHERS = (HERE / "workers", HERE / "search_space", Path(sysconfig.get_path("stdlib")))  # code that is not a user's own

_NO_MEMORY = re.compile(r"out of memory|can't allocate memory|ALLOC_FAILED", re.IGNORECASE)
_GPU_LOST = re.compile(r"\b(CUDA|HIP) error:|Triton Error \[CUDA\]")
_PREAMBLE = re.compile(r"^\[enforce fail at [^]]*\]\s.*?(?=DefaultCPUAllocator)")


def failure(error: BaseException) -> Outcome:
    """Return a FAILED outcome for an exception. Its reason is the exception and the end of the traceback. The reason of
    a WorkersError has no traceback, and for a lack of memory it has the request."""
    for cause in _chain(error):
        if _out_of_memory(cause):
            return Outcome(Verdict.FAILED, f"out of memory: {_request(cause)}{_where(cause)}", health=Health.SPENT)
    reason = f"{type(error).__name__}: {_text(error)}" + ("" if isinstance(error, WorkersError) else _where(error))
    return Outcome(Verdict.FAILED, reason, health=Health.LOST if any(map(_gpu_lost, _chain(error))) else Health.SOUND)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield the exception and those that it was raised from. A user's code may raise an exception from itself (`raise
    error from error`)."""
    found: BaseException | None = error
    seen: set[int] = set()
    while found is not None and id(found) not in seen:
        yield found
        seen.add(id(found))
        found = found.__cause__ or found.__context__


def _out_of_memory(error: BaseException) -> bool:
    import torch

    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    known = isinstance(error, MemoryError | torch.OutOfMemoryError)
    return known or (type(error) in (RuntimeError, torch.AcceleratorError) and bool(_NO_MEMORY.search(_text(error))))


def _gpu_lost(error: BaseException) -> bool:
    """Return True if the process has lost its GPU, so that every later call of CUDA gives the same error."""
    import torch

    return isinstance(error, torch.AcceleratorError) or (
        type(error) is RuntimeError and bool(_GPU_LOST.search(_text(error)))
    )


def _request(error: BaseException) -> str:
    """Return the request for memory from the exception's text; the name of the exception if it has no text."""
    text = next(iter(_text(error).splitlines()), "")
    return _PREAMBLE.sub("", text) or type(error).__name__


def _text(error: BaseException) -> str:
    """Return the exception's text, limited to leave room for the traceback."""
    from search_space.modules import text_of  # imports torch

    return limited(text_of(error), LIMIT // 2)


def _where(error: BaseException) -> str:
    """Return the last frames of the traceback, beginning with the user's own code if there is any. If all these frames
    are in libraries that the user's code called, put the last frame of that code before them."""
    frames = list(traceback.extract_tb(error.__traceback__))
    own = [number for number, frame in enumerate(frames) if _is_own(frame)]
    first = max(own[0] if own else 0, len(frames) - FRAMES)
    shown = frames[first:]
    if own and own[-1] < first:
        shown = [frames[own[-1]], *shown]
    return ("\n" + "".join(traceback.format_list(shown))).rstrip()


def _is_own(frame: traceback.FrameSummary) -> bool:
    """Return True if the code of a frame is a user's own: not this program, no installed package, not Python itself."""
    path = Path(frame.filename)
    others = any(map(path.is_relative_to, OTHERS)) or {"site-packages", "dist-packages"} & set(path.parts)
    return path.is_absolute() and not others
