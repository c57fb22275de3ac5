# SPDX-License-Identifier: Apache-2.0
"""The report page: pictures and tables in one HTML file."""

from .carried_page import CarriedPage
from .html import change, data_uri, figure_tag, flexible, folded, image_tag, number, table, whole_page
from .outlines import label_centre, outline_pictures, outlines
from .page import Report
from .pair_volumes import pair_volumes
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
from .structure_tables import structure_tables
from .tables import (
    DOUBTFUL,
    headline,
    measure_rows,
    named_pairs,
    pair_rows,
    provenance,
    ranked,
    ranking,
    read_history,
    short_names,
)

__all__ = [
    "DOUBTFUL",
    "CarriedPage",
    "Report",
    "as_volume",
    "change",
    "coloured_subjects",
    "comparison",
    "data_uri",
    "difference",
    "embedding_figure",
    "figure_tag",
    "flexible",
    "folded",
    "grid_pictures",
    "headline",
    "image_tag",
    "label_centre",
    "measure_rows",
    "mosaic",
    "named_pairs",
    "number",
    "outline_pictures",
    "outlines",
    "overlay",
    "pair_rows",
    "pair_section",
    "pair_volumes",
    "plane_pictures",
    "provenance",
    "ranked",
    "ranking",
    "read_history",
    "short_names",
    "shown_planes",
    "structure_tables",
    "table",
    "whole_page",
]
