# SPDX-License-Identifier: Apache-2.0
"""The report page: tables and pictures in one HTML file."""

from .html import data_uri, figure_tag, flexible, image_tag, table
from .page import Report
from .pictures import coloured_subjects, comparison, pair_section
from .planes import (
    as_volume,
    difference,
    embedding_figure,
    grid_pictures,
    mosaic,
    overlay,
    plane_pictures,
    shown_planes,
)
from .tables import headline, measure_rows, named_pairs, pair_rows, provenance, ranking, read_history, short_names

__all__ = [
    "Report",
    "as_volume",
    "coloured_subjects",
    "comparison",
    "data_uri",
    "difference",
    "embedding_figure",
    "figure_tag",
    "flexible",
    "grid_pictures",
    "headline",
    "image_tag",
    "measure_rows",
    "mosaic",
    "named_pairs",
    "overlay",
    "pair_rows",
    "pair_section",
    "plane_pictures",
    "provenance",
    "ranking",
    "read_history",
    "short_names",
    "shown_planes",
    "table",
]
