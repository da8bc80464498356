"""Measure everything that needs a GPU, the most valuable figures first, and draw the results.

    python -m benchmarks.gpu --minutes 8 --out /tmp/gpu.jsonl
    python -m benchmarks.gpu --plot /tmp/gpu.jsonl -o /tmp/gpu

Needs torch and NumPy; pictures need matplotlib. Every figure is on disk as soon as it is there: a run that is killed
leaves all that it has measured.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

# Asked whether there is a GPU, torch would otherwise open CUDA, which processes that are forked from this one then
# could not.
os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")


def main() -> int:
    parser = _parser()
    arguments = parser.parse_args()
    if arguments.plot:
        return _plot(arguments.plot, arguments.output)
    if not arguments.minutes > 0:
        parser.error(f"--minutes must be above 0, not {arguments.minutes:g}")
    if arguments.out.exists():
        parser.error(f"{arguments.out} is there already; name another file, or remove it")
    if not arguments.out.parent.is_dir():
        parser.error(f"there is no folder {arguments.out.parent}")
    return _measure(arguments)


def _parser() -> argparse.ArgumentParser:
    temporary = Path(tempfile.gettempdir())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu",
        description=str(__doc__).partition("\n\n")[0],
        epilog="Measurements: loop, paper, captured, streams, processes, mps, activations, compile, memory, precision.",
    )
    parser.add_argument("--minutes", type=float, default=8.0, help="for all measurements together (default: 8)")
    parser.add_argument(
        "--out",
        type=Path,
        default=temporary / "gpu.jsonl",
        help="a new file for the results, JSON lines (default: %(default)s)",
    )
    parser.add_argument("--only", nargs="+", metavar="MEASUREMENT", help="measure these alone")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--small", action="store_true", help="tiny sizes: a test of this program, not of a machine")
    parser.add_argument(
        "--start-method",
        choices=["fork", "spawn"],
        default="fork",
        help="of processes; fork (default) is faster, and spawn is used by itself where fork does not work",
    )
    parser.add_argument("--plot", nargs="+", type=Path, metavar="FILE", help="measure nothing: draw these results")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=temporary / "gpu",
        help="the folder for pictures and tables (default: %(default)s)",
    )
    return parser


def _measure(arguments: argparse.Namespace) -> int:
    import torch._dynamo  # once here, not in every process

    from benchmarks.gpu.driving import MEASUREMENTS, NoDevice, drive

    torch.set_num_threads(1)
    names = arguments.only or list(MEASUREMENTS)
    if unknown := [name for name in names if name not in MEASUREMENTS]:
        print(f"no measurement {unknown[0]!r}; there are {', '.join(MEASUREMENTS)}", file=sys.stderr)
        return 2
    ordered = [name for name in MEASUREMENTS if name in names]
    try:
        drive(ordered, arguments.device, arguments.small, arguments.minutes, arguments.start_method, arguments.out)
    except NoDevice as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _plot(files: list[Path], folder: Path) -> int:
    from benchmarks.gpu.report import report
    from benchmarks.gpu.results import read

    try:
        for path in report(read(files), folder):
            print(path)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    except ImportError:
        print(
            f"pictures need matplotlib, which is not installed; the tables are in {folder / 'gpu.md'}", file=sys.stderr
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
