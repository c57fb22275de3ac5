# SPDX-License-Identifier: Apache-2.0
"""Matching at inference time: the network's answer, optionally refined for the pair at hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from monai.inferers import Inferer
from monai.utils import convert_to_tensor

from ..errors import InputError, check_numbers
from ..networks.levels import Levels
from ..networks.local_matching import LocalMatchingHead
from ..networks.matching_head import ZMatchingHead
from ..spatial.displacement import in_affine_frame
from ..spatial.linear_maps import apart, between_lengths, leads_back, plausible
from ..spatial.warp import affine_about_centre, affine_displacement, compose_affine, fuse, inverse_affine, warp
from ..training.bfloat16 import BFloat16Inferer
from .finer_grid import FinerGrid
from .match_table import ncc_of
from .refinement import Refinement
from .whole_affine import split_anew


class _Glance(NamedTuple):
    """
    A global match: what the network found, the whole map ``(B, N, N + 1)``, the part of it by which the moving image
    was turned before, and that image's features.
    """

    found: dict[str, Any]
    affine: torch.Tensor
    upright: torch.Tensor
    moving: Levels

    @property
    def agreement(self) -> float:
        """0 for a head that tells none."""
        return float(self.found["agreement"].mean()) if "agreement" in self.found else 0.0


class MatchingInferer(Inferer):
    """
    Runs the network on a pair, matches it again with the moving image turned and scaled by the affine map found before
    (descriptors tell a place best where both scans stand alike), and goes on with it: on a finer grid towards
    the scans' own voxels (see :class:`~scripts.matching.FinerGrid`) and, where asked to, by optimisation for this pair
    alone (see :class:`~scripts.matching.Refinement`), which then takes the place of the network's second look.

    Args:
        refine: largest number of steps on the finest grid, with twice as many on a grid of half the prepared size
            before; 0 takes the network's answer.
        window: edge of the windows of the local NCC, in voxels.
        finest: smallest voxel of the finer grid, as a share of a prepared one; 1 for the prepared grid alone.
        most_voxels: of the finer grid, which bounds memory and time.
        sigmas: smoothing of an update and of the whole field by the refinement on the prepared grid, in its voxels.
            Eight choosing pairs of hippocampi: Dice 0.770 with 1.3 and 0.5, 0.767 with 1.7 and 0.7 (one pass 0.754; a
            grid of a quarter of the size before takes 0.005 off both).
        finer_sigmas: the same on the finer grid. Two choosing pairs of heads at 2 mm: Dice 0.840 with 1 and 0.3, 0.833
            with 1.3 and 0.5, none folded.
        global_matches: how many at most; 1, without ``doubted`` and ``both_ways``, takes the network as it is.
        settled: no further one is made where the linear part of the map has changed by less, as a share of a length.
            With 0.03 most hippocampi and heads take two, CTs of other postures up to five, each of which leaves half of
            the rotation that the one before has left.
        lost_agreement: a further one that agrees less by more than that is not taken: where a scan is cut off, maps
            drift away from what both show.
        doubted: a global map whose ``agreement`` and ``inliers`` are both below these is in doubt: a shift, by ``gain``
            and ``largest`` of :meth:`~scripts.networks.LocalMatchingHead.best_start`, takes its place where that makes
            the images more alike, and in any case with inliers below ``lost``. A map by chance is worse than none, as
            for hearts. None, or another local head, keeps any map.
        both_ways: local matching there and back, and the middle of both maps, where the head can
            (:meth:`~scripts.networks.LocalMatchingHead.both_ways`): smoother maps that agree there and back.
        whole_affine: ``scale`` and ``points`` by which the affine part of the answer is fitted to the whole map in the
            end (:func:`~scripts.matching.split_anew`); None leaves the one that places gave.
        check_mirror: match the mirror image of the moving scan too, and tell by how much it is less alike: a symmetric
            part of the body is matched as well mirrored, and only a comparison of both shows it.
        bfloat16: the backbone in bfloat16; None where the device is fast at it. Maps are found in float32, but by a
            network that is taken as it is, heads included.
        spacing: of prepared voxels along each axis, in millimetres; None for the same along all.
        orientation: of the prepared axes, as ``RAS``: which one a mirror image is mirrored along.
    """

    def __init__(
        self,
        refine: int = 0,
        window: int = 5,
        finest: float = 1.0,
        most_voxels: float = 4e6,
        sigmas: Sequence[float] = (1.3, 0.5),
        finer_sigmas: Sequence[float] = (1.0, 0.3),
        global_matches: int = 1,
        settled: float = 0.03,
        lost_agreement: float = 0.01,
        doubted: Mapping[str, float] | None = None,
        both_ways: bool = False,
        whole_affine: Mapping[str, float] | None = None,
        check_mirror: bool = False,
        bfloat16: bool | None = False,
        spacing: Sequence[float] | None = None,
        orientation: str = "RAS",
    ) -> None:
        if refine < 0:
            raise InputError(f"refine is a number of steps, 0 or more, not {refine}")
        if global_matches < 1:
            raise InputError(f"global_matches is a number of them, 1 or more, not {global_matches}")
        check_numbers({"finest": finest, "inferer#most_voxels": most_voxels})
        check_numbers({"inferer#sigmas": list(sigmas), "inferer#finer_sigmas": list(finer_sigmas)}, count=2)
        if not 0 < finest <= 1:
            raise InputError(f"finest is a share of pixdim, above 0 and at most 1, not {finest}")
        self.finest, self.most_voxels = finest, most_voxels
        self.refine = Refinement([2 * refine, refine], [2, 1], window, *sigmas) if refine else None
        self.refine_finer = Refinement([refine], [1], window, *finer_sigmas) if refine else None
        self.global_matches, self.settled, self.lost_agreement = global_matches, settled, lost_agreement
        check_numbers({f"inferer#doubted#{name}": value for name, value in (doubted or {}).items()})
        if doubted is not None and sorted(doubted) != ["agreement", "gain", "inliers", "largest", "lost"]:
            raise InputError(f"doubted needs agreement, inliers, lost, gain and largest, not {', '.join(doubted)}")
        check_numbers({f"inferer#whole_affine#{name}": value for name, value in (whole_affine or {}).items()})
        if whole_affine is not None and sorted(whole_affine) != ["points", "scale"]:
            raise InputError(f"whole_affine needs scale and points, not {', '.join(whole_affine)}")
        self.doubted, self.whole_affine = doubted, whole_affine
        self.both_ways, self.check_mirror = both_ways, check_mirror
        self.spacing, self.left_right = spacing, next((n for n, side in enumerate(orientation) if side in "LR"), 0)
        self.call = BFloat16Inferer(bfloat16)

    def __call__(  # type: ignore[override]
        self,
        inputs: Any,
        network: Callable[..., Any],
        moving: Any = None,
        original_fixed: Any = None,
        original_moving: Any = None,
    ) -> Any:
        """
        Args:
            inputs: the fixed image, ``(B, C, D, H, W)``.
            network: see :class:`~scripts.networks.GVSL`.
            moving: of the same shape; without it one image is restored.
            original_fixed: of a batch of one pair, the scan in its own grid, ``(1, C, d, h, w)`` with its affine;
                without it the match stays on the prepared grid.
            original_moving: the other one.

        Returns:
            what the network returns, with ``local_displacement``, ``displacement`` and ``warped`` refined;
            ``matched_affine``, the map that places gave; ``shifted`` ``(B,)``, whether a shift took its place; where
            asked for ``mirror_margin`` ``(B,)``, by how much the mirror image has less local NCC; and of a match on a
            finer grid ``finer_affine`` ``(B, N, N + 1)``, ``finer_local_displacement`` ``(B, N, d, h, w)``, in its
            voxels, and ``finer_to_prepared`` ``(N + 1, N + 1)``, its voxels to prepared voxels.
        """
        if moving is None:
            return network(inputs)
        if len(inputs) > 1:  # what becomes of a pair must not depend on the others of its batch
            pairs = zip(inputs.split(1), moving.split(1), strict=True)
            alone = [self(fixed, network, other) for fixed, other in pairs]
            return {key: torch.cat([found[key] for found in alone]) for key in alone[0]}
        # thousands of small operations, each of which would copy the metadata of a MetaTensor
        fixed, sampled = (convert_to_tensor(image, track_meta=False) for image in (inputs, moving))
        found = self._matched(network, fixed, sampled)
        if self.check_mirror:
            mirrored = self._matched(network, fixed, torch.flip(sampled, [2 + self.left_right]))
            found = {**found, "mirror_margin": ncc_of(found, fixed) - ncc_of(mirrored, fixed)}
        fixed, sampled = fixed.detach().float(), sampled.detach().float()
        affine, local = found["affine"].detach().float(), found["local_displacement"].detach()
        if self.refine is not None:
            local = self._refined(self.refine, fixed, sampled, affine, local)
        grid = None if original_fixed is None else FinerGrid.of(inputs, original_fixed, self.finest, self.most_voxels)
        if grid is not None:
            images = [grid.image(inputs, original_fixed), grid.image(moving, original_moving)]
            finer = self._on_finer_grid(grid, network, images, affine, local)
            found = {**found, **finer}
            local = grid.coarser(finer["finer_local_displacement"], fixed.shape[2:])
        if self.refine is not None or grid is not None:
            displacement = fuse(affine, local)
            found |= {"local_displacement": local, "displacement": displacement, "warped": warp(sampled, displacement)}
        return found if self.whole_affine is None else split_anew(found, fixed, grid, **self.whole_affine)

    def _matched(self, network: Any, fixed: Any, moving: Any) -> dict[str, Any]:
        head: Any = getattr(network, "matching_head", None)
        glance = getattr(head, "global_matching", None)
        if glance is None or (self.global_matches == 1 and not self.both_ways and not self.doubted):
            return self.call(fixed, network, moving)
        one, other = self._both_levels(network, fixed, moving)
        found, straight = glance(one, other), other
        upright = torch.eye(fixed.dim() - 2, fixed.dim() - 1).to(found["affine"])[None].float()
        best = _Glance(found, found["affine"].detach().float(), upright, other)
        spacing = self.spacing or [1.0] * upright.shape[1]
        for _ in range(1, self.global_matches):
            turned = plausible(between_lengths(best.affine[:, :, :-1], spacing))
            if apart(between_lengths(best.upright[:, :, :-1], spacing), turned) <= self.settled:
                break
            linear = between_lengths(turned, [1 / edge for edge in spacing])
            # a translation would push what is shown out of the field of view
            upright = affine_about_centre(linear, torch.zeros_like(linear[:, 0]), fixed.shape[2:])
            shown, filled = (
                warp(moving, affine_displacement(upright, fixed.shape[2:]), padding_mode=mode)
                for mode in ("zeros", "border")
            )
            other = self._levels(network, filled)._replace(image=shown)
            found = glance(one, other)
            again = _Glance(found, compose_affine(upright, found["affine"].detach().float()), upright, other)
            if again.agreement < best.agreement - self.lost_agreement:
                break
            best = again
        found = {**best.found, "matched_affine": best.affine}
        if "backward_affine" in found:
            found["backward_affine"] = compose_affine(found["backward_affine"], inverse_affine(best.upright))
        affine = self._start(head, one, straight, found)
        seen = (best.moving, best.found["affine"]) if affine is best.affine else (straight, affine)
        found.update(self._local(head, one, *seen))
        displacement = fuse(affine, found["local_displacement"])
        found |= {"affine": affine, "displacement": displacement, "warped": network.warp(moving, displacement)}
        return {**found, "shifted": torch.tensor([affine is not best.affine])}

    def _local(
        self, head: ZMatchingHead, fixed: Levels, moving: Levels, affine: torch.Tensor, **start: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        match = head.local_matching
        if self.both_ways and isinstance(match, LocalMatchingHead) and leads_back(affine[:, :, :-1]):
            return match.both_ways(fixed, moving, affine, **start)
        found: dict[str, torch.Tensor] = match(fixed, moving, affine, **start)
        return found

    def _start(self, head: ZMatchingHead, fixed: Levels, moving: Levels, found: dict[str, Any]) -> torch.Tensor:
        """The map found, or a shift where it is lost, or in doubt and makes the images less alike."""
        match, rule, affine = head.local_matching, self.doubted, found["matched_affine"]
        told = {name: float(found[name].mean()) for name in ("agreement", "inliers") if name in found}
        if rule is None or len(told) < 2 or not isinstance(match, LocalMatchingHead):
            return affine
        if any(value >= rule[name] for name, value in told.items()):
            return affine
        kept = None if told["inliers"] < rule["lost"] else affine
        return match.best_start(fixed, moving, kept, rule["gain"], rule["largest"])

    def _levels(self, network: Any, images: Any) -> Levels:
        return Levels(*self.call(images, lambda image: Levels.of(network.backbone, image)))  # type: ignore[arg-type]

    def _both_levels(self, network: Any, fixed: Any, moving: Any) -> tuple[Levels, Levels]:
        both = self._levels(network, torch.cat([fixed, moving]))
        return both.map(lambda of: of.chunk(2)[0]), both.map(lambda of: of.chunk(2)[1])

    def _on_finer_grid(
        self, grid: FinerGrid, network: Any, images: list[torch.Tensor], affine: torch.Tensor, local: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        affine, local = grid.affine_map(affine), grid.finer(local)
        if self.refine_finer is not None:
            local = self._refined(self.refine_finer, images[0], images[1], affine, local)
        elif isinstance(network.matching_head.local_matching, LocalMatchingHead):
            levels = self._both_levels(network, *images)
            local = self._local(network.matching_head, *levels, affine, start=local)["local_displacement"]
        found = {"finer_affine": affine, "finer_local_displacement": local}
        return {**found, "finer_to_prepared": grid.to_prepared}

    @staticmethod
    def _refined(
        refine: Refinement, fixed: torch.Tensor, moving: torch.Tensor, affine: torch.Tensor, local: torch.Tensor
    ) -> torch.Tensor:
        frame = affine_displacement(affine, fixed.shape[2:])
        return in_affine_frame(affine, refine(fixed, moving, fuse(affine, local), frame))
