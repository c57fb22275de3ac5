# SPDX-License-Identifier: Apache-2.0
"""Will pre-trained weights help on given data? Probes of frozen features, a short fine-tuning, a verdict, a page."""

from .cases import ProbeCases, read_cases
from .comparison import compare, verdict
from .feature_probes import carry_over, cluster_measures, sampled_features
from .probe import Probe
from .scan_level import ScanLevelProbe
from .scan_scores import cross_validated, pooled_features, scan_scores, scores_by_group
from .voxel_probes import FineTuning, LinearProbe

__all__ = [
    "FineTuning",
    "LinearProbe",
    "Probe",
    "ProbeCases",
    "ScanLevelProbe",
    "carry_over",
    "cluster_measures",
    "compare",
    "cross_validated",
    "pooled_features",
    "read_cases",
    "sampled_features",
    "scan_scores",
    "scores_by_group",
    "verdict",
]
