# SPDX-License-Identifier: Apache-2.0
"""What each measure of the report is called, and how to read it."""

MEANINGS = {
    "ncc": (
        "Likeness of the images (local NCC)",
        "1: identical, 0: unrelated. Higher is better, but grey values can be matched with the wrong anatomy.",
    ),
    "dice": (
        "Overlap of the labelled structures (Dice)",
        "1: perfect, 0: none. Higher is better. No label was used to match, so this shows whether anatomy was matched.",
    ),
    "hd95": (
        "Distance of the structures' surfaces (HD95, mm)",
        "95 % of the surfaces lie closer than this. 0 is perfect, lower is better.",
    ),
    "restoration_error": (
        "Restoration error (mean squared)",
        "Corrupted and restored image against the clean one, intensities 0 to 1. 0 is perfect, lower is better.",
    ),
    "folded_percentage": (
        "Folded voxels (%)",
        "Where the map turns tissue inside out, which anatomy cannot do. 0 is best; several percent: do not trust it.",
    ),
    "log_jacobian_std": (
        "Unevenness of the map",
        "Standard deviation of the logarithm of the local volume change. 0: the same everywhere; lower is smoother.",
    ),
    "agreement": (
        "Agreement of the global map",
        "0 to 1: how near places, looked up in the other scan, are found back from there. 1: exactly; low: the scans "
        "show different things, or much was mistaken.",
    ),
    "inliers": (
        "Places that the global map explains (inliers)",
        "0 to 1: share of the places found that fit one affine map. 1: all; low: the map is little more than a guess.",
    ),
    "conditioning": (
        "Spread of these places (conditioning)",
        "0 to 1. 0: they lie in a plane, and nothing tells how the map goes on across it; higher is better.",
    ),
    "inverse_consistency_mm": (
        "There and back (mm)",
        "How far a place comes to lie from itself, mapped to the other scan and back by the affine maps of both ways. "
        "Near 0 where both found the same; many voxels: one of them is wrong.",
    ),
    "silhouette": (
        "Silhouette of the features",
        "-1 to 1. Near 1: each structure's features form a group of their own; 0 or below: the groups overlap.",
    ),
    "neighbour_purity": (
        "Neighbour purity of the features",
        "Share of a feature's nearest neighbours in OTHER subjects that belong to the same structure. 1 is perfect.",
    ),
    "embedding_collapse": (
        "Collapse of the features",
        "0: the features vary in all directions of their channels alike; 1: in a single one, the others tell nothing.",
    ),
}
