# SPDX-License-Identifier: Apache-2.0

"""Make a cohort of chest-CT-like phantoms with MM-WHS heart labels: ``python tools/make_phantoms.py OUT``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from command import Parser
from phantoms.cohort import CohortError, write_cohort

SPACINGS = (2.0, 12.0)
"""The nominal voxel sizes at which phantoms look right, mm."""


def _parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = Parser(
        prog="make_phantoms",
        description="Make chest-CT-like phantoms with MM-WHS heart labels (left and right ventricle and atrium, "
        "myocardium, aorta, pulmonary artery) as NIfTI in the Medical Segmentation Decathlon layout.",
        epilog="A subject depends on the seed, its index and the spacing alone: asking again for more subjects adds "
        "to a cohort. A folder that holds a cohort of another seed or spacing is refused.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("out", metavar="OUT", type=Path, help="folder for imagesTr, labelsTr and dataset.json")
    parser.add_argument("--subjects", metavar="N", type=int, default=12, help="number of subjects, at least 1")
    parser.add_argument("--seed", metavar="N", type=int, default=0, help="seed of the cohort, not negative")
    parser.add_argument(
        "--spacing",
        metavar="MM",
        type=float,
        default=3.0,
        help=f"nominal voxel size, {SPACINGS[0]:g} to {SPACINGS[1]:g}; each scan's own is drawn around it",
    )
    parser.add_argument("--workers", metavar="N", type=int, default=1, help="number of processes, at least 1")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: its arguments, those of the process by default.

    Returns:
        The exit code: 0, or 1 if the folder cannot take the cohort (2, by ``SystemExit``, for wrong arguments).
    """
    parser = _parser()
    args = parser.parse_args(argv)
    if args.subjects < 1:
        parser.error(f"--subjects must be at least 1, not {args.subjects}")
    if args.seed < 0:
        parser.error(f"--seed must not be negative, not {args.seed}")
    if not SPACINGS[0] <= args.spacing <= SPACINGS[1]:
        parser.error(f"--spacing must be from {SPACINGS[0]:g} to {SPACINGS[1]:g} mm, not {args.spacing:g}")
    if args.workers < 1:
        parser.error(f"--workers must be at least 1, not {args.workers}")
    try:
        write_cohort(args.out, args.subjects, args.seed, args.spacing, args.workers)
    except CohortError as error:
        print(f"{parser.prog}: error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        place, reason = error.filename or args.out, error.strerror or error
        print(f"{parser.prog}: error: cannot write {place}: {reason}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{parser.prog}: interrupted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
