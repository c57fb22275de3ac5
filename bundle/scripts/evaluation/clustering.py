# SPDX-License-Identifier: Apache-2.0
"""Do features of the same anatomy lie together, between subjects? Measures and a picture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from monai.metrics import compute_embedding_collapse

WORKING_MEMORY = 128
"""MB that scikit-learn may take for a table of distances; it takes 1024 if one lets it."""


def sample_features(
    features: torch.Tensor, label: torch.Tensor, per_structure: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """
    Features at random voxels of every structure of a scan.

    Args:
        features: local features f^l, ``(C, D, H, W)``.
        label: ``(D, H, W)``, 0 for the background, which is left out.
        per_structure: voxels of each structure, fewer where it is smaller.
        rng: random numbers.

    Returns:
        features ``(n, C)`` and their labels ``(n,)``.
    """
    flat, codes = features.flatten(1).T.float().cpu().numpy(), label.flatten().round().long().cpu().numpy()
    chosen = []
    for code in np.unique(codes[codes > 0]):
        where = np.flatnonzero(codes == code)
        chosen.append(rng.choice(where, min(per_structure, len(where)), replace=False))
    index = np.concatenate(chosen) if chosen else np.zeros(0, dtype=int)
    return flat[index], codes[index]


def neighbour_purity(features: np.ndarray, codes: np.ndarray, subjects: np.ndarray, k: int = 5) -> float:
    """
    Share of the k nearest neighbours IN OTHER SUBJECTS that belong to the same structure.

    Args:
        features: ``(n, C)``.
        codes: structure of each, ``(n,)``.
        subjects: subject of each, ``(n,)``.
        k: neighbours.

    Returns:
        0..1, averaged over the structures, so that large ones do not decide alone.
    """
    from sklearn.neighbors import NearestNeighbors

    same = np.zeros(len(codes))
    for subject in np.unique(subjects):
        own, others = subjects == subject, subjects != subject
        search = NearestNeighbors(n_neighbors=min(k, int(others.sum()))).fit(features[others])
        neighbours = codes[others][search.kneighbors(features[own], return_distance=False)]
        same[own] = (neighbours == codes[own][:, None]).mean(axis=1)
    return float(np.mean([same[codes == code].mean() for code in np.unique(codes)]))


def clustering_measures(
    features: Sequence[np.ndarray], codes: Sequence[np.ndarray], subjects: Sequence[str], neighbours: int = 5
) -> dict[str, float]:
    """
    How well features cluster by anatomy.

    Args:
        features: per scan ``(n, C)``.
        codes: per scan ``(n,)``.
        subjects: subject of each scan.
        neighbours: k of the nearest-neighbour purity.

    Returns:
        ``silhouette`` (-1..1, cosine distance) and ``neighbour_purity`` (0..1); empty with fewer than two structures or
        subjects.
    """
    from sklearn import config_context
    from sklearn.metrics import silhouette_score

    stacked, labels = np.concatenate(features), np.concatenate(codes)
    owners = np.repeat(np.asarray(subjects), [len(part) for part in codes])
    if len(np.unique(labels)) < 2 or len(np.unique(owners)) < 2:
        return {}
    unit = stacked / np.maximum(np.linalg.norm(stacked, axis=1, keepdims=True), 1e-12)
    with config_context(working_memory=WORKING_MEMORY):
        return {
            "silhouette": float(silhouette_score(unit, labels, metric="cosine")),
            "neighbour_purity": neighbour_purity(unit, labels, owners, neighbours),
        }


def collapse_measure(features: Sequence[np.ndarray]) -> dict[str, float]:
    """
    MONAI's measure of dimensional collapse, see ``monai.metrics.EmbeddingCollapseMetric``: how many of the channels'
    directions the features do not use, by the effective rank.

    Args:
        features: per scan ``(n, C)``.

    Returns:
        ``embedding_collapse``: 0 for a variance spread evenly over all directions, 1 where there is a single one;
        nothing for fewer than two features.
    """
    stacked = torch.as_tensor(np.concatenate(features)) if features else torch.zeros(0, 1)
    if len(stacked) < 2:
        return {}
    scores = compute_embedding_collapse(stacked, include_indicators=["effective_rank"])
    return {"embedding_collapse": float(scores["effective_rank_score"])}  # type: ignore[arg-type]


def embedding(features: Sequence[np.ndarray], seed: int = 0) -> np.ndarray:
    """
    Two coordinates for every feature, by t-SNE after a principal component analysis.

    Args:
        features: per scan ``(n, C)``.
        seed: of t-SNE.

    Returns:
        ``(sum of n, 2)``.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    stacked = np.concatenate(features)
    reduced = PCA(min(30, *stacked.shape), random_state=seed).fit_transform(stacked)
    perplexity = min(30.0, max(2.0, (len(stacked) - 1) / 4))
    return TSNE(2, perplexity=perplexity, init="pca", random_state=seed).fit_transform(reduced)


def principal_colours(maps: Sequence[np.ndarray], samples: int = 20000, seed: int = 0) -> list[np.ndarray]:
    """
    Colour each voxel by the first three principal components of its features, the SAME components for all scans: same
    colour, same features.

    Args:
        maps: local features of each scan, ``(C, D, H, W)``.
        samples: voxels of each scan that the components are found from.
        seed: of the choice of voxels.

    Returns:
        per scan ``(D, H, W, 3)``, within 0..1.
    """
    from sklearn.decomposition import PCA

    rng = np.random.default_rng(seed)
    flat = [np.ascontiguousarray(features.reshape(len(features), -1).T) for features in maps]
    chosen = np.concatenate([part[rng.permutation(len(part))[:samples]] for part in flat])
    components = PCA(min(3, chosen.shape[1]), random_state=seed).fit(chosen)
    low, high = np.percentile(components.transform(chosen), [2, 98], axis=0)
    colours = []
    for part, features in zip(flat, maps, strict=True):
        scaled = np.clip((components.transform(part) - low) / np.maximum(high - low, 1e-12), 0, 1)
        padded = np.pad(scaled, [(0, 0), (0, 3 - scaled.shape[1])])
        colours.append(padded.reshape(*features.shape[1:], 3))
    return colours
