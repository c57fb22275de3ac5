# SPDX-License-Identifier: Apache-2.0
"""Finding, reading and splitting scans, caches, pairs and samplers."""

from .cache import DiskCache, MemoryCache, blame_file, cached_dataset, prepared
from .channels import channel_files, is_further_channel
from .cohorts import by_cohort, find_cohorts, split_subjects
from .dataset_json import channel_names, is_nnunet, label_names, listed_images, read_json
from .dicom_series import series_paths
from .find_scans import find_scans
from .fingerprint import Fingerprint, describe_misfit, report_misfit
from .folder_layouts import check_layout, laid_out_images
from .geometry import ScanGeometry, UnusableScan
from .label_checks import check_case, check_label
from .labels import label_type
from .pair_dataset import PairDataset
from .plan_grid import GridPlan, size_for
from .reading import LoadScan, LoadScand, ScanReader, read_scan, scan_geometry
from .result_names import ResultLayout, record_results, refuse_overwriting, result_names, scan_name
from .samplers import CaseDraws, DrawSampler
from .scan_checks import ScanCheck, check_scan, inspect_scan, scan_exists
from .scan_table import write_scan_table
from .splits import CaseSplit, chosen_part, split_cases
from .stamps import file_stamp
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
    "MemoryCache",
    "PairDataset",
    "ResultLayout",
    "ScanCheck",
    "ScanGeometry",
    "ScanReader",
    "ScanWriter",
    "UnusableScan",
    "blame_file",
    "by_cohort",
    "cached_dataset",
    "channel_files",
    "channel_names",
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
    "is_further_channel",
    "is_nnunet",
    "label_names",
    "label_type",
    "laid_out_images",
    "listed_images",
    "prepared",
    "read_json",
    "read_scan",
    "record_results",
    "refuse_overwriting",
    "report_misfit",
    "result_names",
    "scan_exists",
    "scan_geometry",
    "scan_name",
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
