"""What an exception says about a job, and about the process that it was raised in."""

from __future__ import annotations

import errno
import re
import sysconfig
import traceback
from collections.abc import Iterator
from pathlib import Path

from workers.contract import Health, Outcome, Verdict, WorkersError
from workers.text import LIMIT, limited

FRAMES = 5  # of a traceback, the last ones
HERE = Path(__file__).resolve().parents[1]
OTHERS = (HERE / "workers", HERE / "search_space", Path(sysconfig.get_path("stdlib")))  # of no person's own

_NO_MEMORY = re.compile(r"out of memory|can't allocate memory|ALLOC_FAILED", re.IGNORECASE)
_GPU_LOST = re.compile(r"\b(CUDA|HIP) error:|Triton Error \[CUDA\]")
_PREAMBLE = re.compile(r"^\[enforce fail at [^]]*\]\s.*?(?=DefaultCPUAllocator)")


def failure(error: BaseException) -> Outcome:
    """FAILED. The reason is the exception and, where it is not ours, which says all there is to say, where it was
    raised; for want of memory, what was asked for."""
    for cause in _chain(error):
        if _out_of_memory(cause):
            return Outcome(Verdict.FAILED, f"out of memory: {_request(cause)}{_where(cause)}", health=Health.SPENT)
    reason = f"{type(error).__name__}: {_text(error)}" + ("" if isinstance(error, WorkersError) else _where(error))
    return Outcome(Verdict.FAILED, reason, health=Health.LOST if any(map(_gpu_lost, _chain(error))) else Health.SOUND)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The exception, and those that it was raised from: what a network of a user's own raises may come wrapped, in
    itself too (`raise error from error`)."""
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
    """Whether the process has lost its GPU: CUDA gives every later call the same error."""
    import torch

    return isinstance(error, torch.AcceleratorError) or (
        type(error) is RuntimeError and bool(_GPU_LOST.search(_text(error)))
    )


def _request(error: BaseException) -> str:
    """What was asked for, as the exception has it; Python's own does not say."""
    text = next(iter(_text(error).splitlines()), "")
    return _PREAMBLE.sub("", text) or type(error).__name__


def _text(error: BaseException) -> str:
    """The exception's text, limited so that there is room for where it was raised."""
    from search_space.modules import text_of  # imports torch

    return limited(text_of(error), LIMIT // 2)


def _where(error: BaseException) -> str:
    """Return the last frames of the traceback. If a person's own code raised it, they begin there; and if torch was
    called there and calls itself many times, the last frame of that code comes before them."""
    frames = list(traceback.extract_tb(error.__traceback__))
    own = [number for number, frame in enumerate(frames) if _is_own(frame)]
    first = max(own[0] if own else 0, len(frames) - FRAMES)
    shown = frames[first:]
    if own and own[-1] < first:
        shown = [frames[own[-1]], *shown]
    return ("\n" + "".join(traceback.format_list(shown))).rstrip()


def _is_own(frame: traceback.FrameSummary) -> bool:
    """Return whether a frame is of neither this program nor an installed package nor Python itself."""
    path = Path(frame.filename)
    others = any(map(path.is_relative_to, OTHERS)) or {"site-packages", "dist-packages"} & set(path.parts)
    return path.is_absolute() and not others
