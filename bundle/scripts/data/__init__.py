# SPDX-License-Identifier: Apache-2.0
"""Finding, reading and splitting scans, caches, pairs and samplers."""

from .cache import DiskCache, blame_file, cached_dataset, prepared
from .cohorts import by_cohort, find_cohorts, split_subjects
from .find_scans import find_scans
from .folder_layouts import check_layout, laid_out_images, listed_images
from .labels import check_case, check_label
from .pair_dataset import PairDataset
from .reading import check_scan, file_stamp, set_up_readers
from .samplers import CaseDraws, DrawSampler
from .splits import chosen_part, split_cases

__all__ = [
    "CaseDraws",
    "DiskCache",
    "DrawSampler",
    "PairDataset",
    "blame_file",
    "by_cohort",
    "cached_dataset",
    "check_case",
    "check_label",
    "check_layout",
    "check_scan",
    "chosen_part",
    "file_stamp",
    "find_cohorts",
    "find_scans",
    "laid_out_images",
    "listed_images",
    "prepared",
    "set_up_readers",
    "split_cases",
    "split_subjects",
]
