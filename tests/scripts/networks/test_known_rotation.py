# SPDX-License-Identifier: Apache-2.0

"""The affine head learns rotations."""

import numpy as np
import torch
from scipy import ndimage
from scipy.linalg import polar
from scipy.spatial.transform import Rotation
from scripts.losses import GVSLLoss, LocalNCCLoss, MatchingTerm
from scripts.networks import GVSL, AffineHead, LocalHead, UNetBackbone, ZMatchingHead
from scripts.spatial import affine_about_centre, affine_displacement, warp
from torch import nn

SIZE = (28, 24, 20)


class NoDeformation(LocalHead):
    """A deformable head that leaves everything to the affine head."""

    def field(self, moving, fixed):
        return torch.zeros(len(fixed), 3, *fixed.shape[2:])


def asymmetric_image():
    """A smooth random texture within an ellipsoid, on grey."""
    texture = ndimage.gaussian_filter(np.random.default_rng(1).normal(size=SIZE), 2.5)
    centred = (np.indices(SIZE) - (np.array(SIZE) - 1).reshape(3, 1, 1, 1) / 2) / np.reshape((11, 9, 7.5), (3, 1, 1, 1))
    radius = np.sqrt((centred**2).sum(0))
    return np.clip(2 * texture / np.abs(texture).max() / (1 + np.exp((radius - 1) * 8)), 0, 1)


def encoder_only(backbone):
    """The backbone's f^g with unused local features: what the affine head needs, in a third of the time."""

    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.downs = backbone.stem, backbone.downs

        def forward(self, image):
            return backbone.encode(image)[-1], image.new_zeros(len(image), 1, *image.shape[2:])

    return Encoder()


def test_a_known_rotation_is_recovered():
    """
    Trained by the masked NCC alone on random rotations of one image, the network finds rotations it never saw, made by
    scipy's splines, to within 2 degrees.
    """
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    still = asymmetric_image()
    image = torch.as_tensor(still, dtype=torch.float32)[None, None]
    backbone = encoder_only(UNetBackbone(3, 1, (8, 16, 32)))
    network = GVSL(backbone, ZMatchingHead(AffineHead(32, 32), NoDeformation()), nn.Identity())
    steps, batch = 200, 4
    loss = GVSLLoss({"matching": MatchingTerm(LocalNCCLoss(9))})
    affine_head = network.matching_head.global_matching
    parameters = [*network.backbone.parameters(), *affine_head.parameters()]
    last = {id(p) for p in affine_head.parameters_of_map.parameters()}
    rates = [3e-3, 3e-2]
    groups = [{"params": [p for p in parameters if (id(p) in last) == chosen]} for chosen in (False, True)]
    optimiser = torch.optim.Adam(groups, rates[0])
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rates, total_steps=steps)

    def rotated(turns):
        """image(R^T q): brought back by the map R."""
        back = torch.as_tensor(turns, dtype=torch.float32).transpose(1, 2)
        affine = affine_about_centre(back, torch.zeros(len(back), 3), SIZE)
        return warp(image.expand(len(back), -1, -1, -1, -1), affine_displacement(affine, SIZE), padding_mode="border")

    fixed = image.expand(batch, -1, -1, -1, -1)
    for _ in range(steps):
        axes = rng.normal(size=(batch // 2, 3))
        angles = np.radians(rng.uniform(-15, 15, (batch // 2, 1)))
        turns = Rotation.from_rotvec(angles * axes / np.linalg.norm(axes, axis=1, keepdims=True)).as_matrix()
        moving = rotated(np.concatenate([turns, turns.transpose(0, 2, 1)]))
        optimiser.zero_grad()
        loss(network(fixed, moving), torch.cat([fixed, moving], dim=1))["loss"].backward()
        optimiser.step()
        schedule.step()

    network.eval()
    centre = (np.array(SIZE) - 1) / 2
    for vector in [(12, 0, 0), (0, -10, 0), (0, 0, 11), (6, -7, 5), (-8, 3, -6)]:
        turn = Rotation.from_rotvec(np.radians(vector))
        back = turn.as_matrix().T
        moving = ndimage.affine_transform(still, back, centre - back @ centre, order=3, mode="nearest")
        with torch.no_grad():
            found = network(image, torch.as_tensor(moving, dtype=torch.float32)[None, None])["affine"][0, :, :3]
        recovered = Rotation.from_matrix(polar(found.double().numpy())[0])
        error = np.degrees((recovered * turn.inv()).magnitude())
        assert error < 2, f"rotation {vector}: {error:.2f} degrees off"
