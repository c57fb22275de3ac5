# SPDX-License-Identifier: Apache-2.0
"""Finding, reading and splitting scans, caches, pairs and samplers."""

from .cache import DiskCache, blame_file, cached_dataset, prepared
from .cohorts import by_cohort, find_cohorts, split_subjects
from .dicom_series import file_stamp, series_paths
from .find_scans import find_scans
from .fingerprint import Fingerprint, describe_misfit, report_misfit
from .folder_layouts import check_layout, laid_out_images, listed_images
from .geometry import ScanGeometry, UnusableScan
from .labels import check_case, check_label
from .pair_dataset import PairDataset
from .plan_grid import GridPlan, size_for
from .reading import LoadScan, LoadScand, ScanReader, read_scan, scan_geometry
from .samplers import CaseDraws, DrawSampler
from .scan_checks import ScanCheck, check_scan, inspect_scan, scan_exists
from .scan_table import write_scan_table
from .splits import CaseSplit, chosen_part, split_cases
from .trained_scans import fingerprint, fingerprints, seen_scans, trained_on, unseen_scans
from .writing import ScanWriter, geometry_of, write_displacement, write_nifti

__all__ = [
    "CaseDraws",
    "CaseSplit",
    "DiskCache",
    "DrawSampler",
    "Fingerprint",
    "GridPlan",
    "LoadScan",
    "LoadScand",
    "PairDataset",
    "ScanCheck",
    "ScanGeometry",
    "ScanReader",
    "ScanWriter",
    "UnusableScan",
    "blame_file",
    "by_cohort",
    "cached_dataset",
    "check_case",
    "check_label",
    "check_layout",
    "check_scan",
    "chosen_part",
    "describe_misfit",
    "file_stamp",
    "find_cohorts",
    "find_scans",
    "fingerprint",
    "fingerprints",
    "geometry_of",
    "inspect_scan",
    "laid_out_images",
    "listed_images",
    "prepared",
    "read_scan",
    "report_misfit",
    "scan_exists",
    "scan_geometry",
    "seen_scans",
    "series_paths",
    "size_for",
    "split_cases",
    "split_subjects",
    "trained_on",
    "unseen_scans",
    "write_displacement",
    "write_nifti",
    "write_scan_table",
]
