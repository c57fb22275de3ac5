# SPDX-License-Identifier: Apache-2.0

"""Write a pre-trained residual encoder U-Net for nnU-Net: ``python tools/export_nnssl.py MODEL OUT``.

OUT is what two versions of nnU-Net read:

- the development version, which fine-tunes networks that nnssl has pre-trained, by the adaptation plan that is in OUT;
- 2.8.1, the newest release, which cannot read adaptation plans: ``nnUNetv2_train ... -pretrained_weights OUT`` takes
  encoder and decoder if the network of its plans is this one; ``--plans nnUNetPlans.json`` writes such plans beside.

In Python ``load_into`` fills any ``ResidualEncoderUNet`` with what fits, and tells what does not. nnU-Net's axes are
z, y, x, ours x, y, z: all kernels are turned. It has its images z-scored, as ``configs/resenc.json`` has them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from export_backbone import NETWORK, backbone_weights, command_line, one_each, run
from monai.bundle import ConfigParser
from scripts.errors import InputError
from scripts.files import load_file, write_text
from scripts.networks import load_weights, repeat_stem
from torch import nn

CONFIGS = Path(__file__).resolve().parents[1] / "bundle" / "configs"
STEM = ("encoder.stem.convs.0.conv", "encoder.stem.convs.0.all_modules.0")
STEMS = [f"{part}{name}.weight" for part in ("", "decoder.") for name in STEM]
"""Names of the kernels that see the image; the decoder of that network knows its encoder."""
HEAD = "seg_layers."
BY_NAME = ("conv_op", "norm_op", "dropout_op", "nonlin")
"""Arguments that are classes; plans have their names."""
DEFAULTS = {"dropout_op": None, "dropout_op_kwargs": None}
OWN = ("input_channels", "num_classes", "deep_supervision")
"""Arguments that follow from a task and are in no plan."""
CITATION = {
    "type": "Pretraining Method",
    "name": "GVSL",
    "apa_citations": [
        "He, Y., Yang, G., Ge, R., Chen, Y., Coatrieux, J.-L., Wang, B., & Li, S. (2023). Geometric Visual Similarity "
        "Learning in 3D Medical Image Self-supervised Pre-training. In Proceedings of the IEEE/CVF Conference on "
        "Computer Vision and Pattern Recognition. https://doi.org/10.1109/CVPR52729.2023.00920"
    ],
}


def read_configuration(model: Path, settings: Path | None) -> ConfigParser:
    """
    The configuration that a network was trained with.

    Args:
        model: its ``model.pt``.
        settings: ``settings.json`` of the run, or an overlay; None for the one beside the model, or else
            ``configs/resenc.json``.
    """
    beside = model.with_name("settings.json")
    overlay = settings or (beside if beside.is_file() else CONFIGS / "resenc.json")
    parser = ConfigParser()
    try:
        parser.read_config([str(CONFIGS / "train.json"), str(overlay)])
    except (OSError, ValueError) as error:
        raise InputError(f"{overlay} cannot be read ({error}): pass the settings.json of the run") from error
    return parser


def architecture(network: nn.Module) -> dict[str, Any]:
    """``arch_kwargs`` of a plan, from a network that knows its arguments."""
    arguments: Any = {name: value for name, value in network.arguments.items() if not name.startswith("_")}  # type: ignore
    named = {name: value.lstrip("$") if name in BY_NAME else value for name, value in arguments.items()}
    return {**DEFAULTS, **{name: value for name, value in named.items() if name not in OWN}}


def turned(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The weights for images whose axes come in the reverse order; those under several names stay one."""
    return one_each({name: w.permute(0, 1, 4, 3, 2) if w.dim() == 5 else w for name, w in weights.items()})


def convert(
    content: Any, source: Path, settings: Path | None = None, channels: int = 1
) -> tuple[dict[str, Any], list[str]]:
    """
    The checkpoint.

    Args:
        content: of a ``model.pt`` or ``checkpoint.pt``.
        source: where it comes from.
        settings: see :func:`read_configuration`.
        channels: of the images it is for; the stem of a one-channel network is repeated, and divided.

    Returns:
        the checkpoint, tensors and plain containers only, and lines that tell what is in it.

    Raises:
        InputError: for another network, or weights that do not cover it.
    """
    found = backbone_weights(content, source)
    weights = {name.removeprefix(NETWORK): value for name, value in found.items() if name.startswith(NETWORK)}
    if not any(name.startswith(STEM[0]) for name in weights):
        raise InputError(
            f"{source} holds no residual encoder U-Net: pre-train one with the overlay configs/resenc.json; the U-Net "
            "of the method's paper cannot be expressed in nnU-Net's plans"
        )
    parser = read_configuration(source, settings)
    network = parser.get_parsed_content("network_def#backbone").network
    load_weights(network, weights, source)
    weights = repeat_stem(turned(weights), STEMS, channels)
    weights = {name: value for name, value in weights.items() if HEAD not in name}
    size, spacing = (list(parser.get_parsed_content(name))[::-1] for name in ("spatial_size", "pixdim"))
    plan = {
        "architecture_plans": {
            "arch_class_name": "ResidualEncoderUNet",
            "arch_kwargs": architecture(network),
            "arch_kwargs_requiring_import": list(BY_NAME),
        },
        "pretrain_plan": {"configurations": {"3d_fullres": {"spacing": spacing, "patch_size": size}}},
        "pretrain_num_input_channels": channels,
        "recommended_downstream_patchsize": size,
        "key_to_encoder": "encoder.stages",
        "key_to_stem": "encoder.stem",
        "keys_to_in_proj": list(STEM),
        "key_to_lpe": None,
    }
    encoder = sum(name.startswith("encoder.") for name in weights)
    report = [
        f"written: {encoder} tensors of the encoder, {len(weights) - encoder} of the decoder, for {channels} input "
        "channel(s); not written: the last layers, which belong to a task",
        f"trained with voxels of {spacing} mm, in patches of {size} voxels (axes z, y, x)",
    ]
    return {"network_weights": weights, "nnssl_adaptation_plan": plan, "citations": [CITATION]}, report


def load_into(network: nn.Module, content: Mapping[str, Any]) -> list[str]:
    """
    Begin a network of nnU-Net's with what a checkpoint has for it: encoder and decoder, in every version of nnU-Net.

    Args:
        network: a ``ResidualEncoderUNet`` of any task.
        content: of the checkpoint, see :func:`convert`.

    Returns:
        lines that tell what was filled, and what keeps its random weights and why.

    Raises:
        InputError: when nothing of the encoder fits.
    """
    own, given = network.state_dict(), dict(content["network_weights"])
    stems = [name for name in STEMS if name in own and name in given]
    if stems:
        given = repeat_stem(given, stems, own[stems[0]].shape[1])
    fits = {name for name, value in own.items() if name in given and given[name].shape == value.shape}
    lines = []
    for part in ("encoder", "decoder"):
        names = [name for name in own if name.startswith(f"{part}.") and HEAD not in name and ".encoder." not in name]
        filled = [name for name in names if name in fits]
        lines.append(f"{part}: {len(filled)} of {len(names)} tensors filled")
        if part == "encoder" and not filled:
            raise InputError(
                "nothing of the encoder fits: the network is of another architecture than the checkpoint's"
            )
        other = sorted(set(names) - set(filled))
        if other:
            more = " ..." if len(other) > 4 else ""
            lines.append(f"{part}: of another shape, left random: {', '.join(other[:4])}{more}")
    heads = [name for name in own if HEAD in name]
    lines.append(f"last layers: {len(heads)} tensors random, they belong to the task")
    network.load_state_dict({**own, **{name: given[name] for name in fits}})
    return lines


def with_architecture(plans: Mapping[str, Any], checkpoint: Mapping[str, Any], configuration: str) -> dict[str, Any]:
    """
    nnU-Net's plans of a data set with the network of a checkpoint, for ``-pretrained_weights`` in nnU-Net 2.8.1.

    Args:
        plans: content of ``nnUNetPlans.json``.
        checkpoint: see :func:`convert`.
        configuration: of the plans, such as "3d_fullres".

    Raises:
        InputError: when the plans have no such configuration, or a patch that the network's poolings do not divide.
    """
    made = json.loads(json.dumps(plans))
    if configuration not in made.get("configurations", {}):
        raise InputError(f"the plans have no configuration '{configuration}': pass --configuration with one they have")
    architecture = checkpoint["nnssl_adaptation_plan"]["architecture_plans"]
    multiple = 2 ** (architecture["arch_kwargs"]["n_stages"] - 1)
    patch = made["configurations"][configuration].get("patch_size", [])
    if len(patch) != 3 or any(n % multiple for n in patch):
        raise InputError(
            f"the patch {patch} of '{configuration}' is no volume of multiples of {multiple}: set such a one there"
        )
    made["configurations"][configuration]["architecture"] = {
        "network_class_name": "dynamic_network_architectures.architectures.unet.ResidualEncoderUNet",
        "arch_kwargs": architecture["arch_kwargs"],
        "_kw_requires_import": architecture["arch_kwargs_requiring_import"],
    }
    made["plans_name"] = f"{made.get('plans_name', 'nnUNetPlans')}_gvsl"
    return made


def write_plans(plans: Path, checkpoint: Path, configuration: str) -> Path:
    """Write the plans of :func:`with_architecture` beside those of the data set, under a name of their own."""
    try:
        content = json.loads(plans.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"{plans} cannot be read ({error}): pass the nnUNetPlans.json of the preprocessed set"
        ) from error
    made = with_architecture(content, load_file(checkpoint), configuration)
    path = plans.with_name(f"{made['plans_name']}.json")
    write_text(json.dumps(made, indent=4) + "\n", path)
    return path


def main(argv: Sequence[str] | None = None) -> int:
    """
    Run the command.

    Args:
        argv: its arguments, those of the process by default.

    Returns:
        The exit code: 0, or 1 (2, by ``SystemExit``, for wrong arguments).
    """
    parser = command_line(
        "export_nnssl",
        "Write a pre-trained residual encoder U-Net (configs/resenc.json) as the checkpoint that nnU-Net fine-tunes.",
        "nnU-Net 2.8.1 cannot read adaptation plans: give it OUT by -pretrained_weights and plans made by --plans.",
    )
    parser.add_argument("--settings", type=Path, help="settings.json of the run (default: the one beside IN)")
    parser.add_argument("--channels", type=int, default=1, help="channels of the images (default: 1)")
    parser.add_argument("--plans", type=Path, help="nnUNetPlans.json of a data set, to be written with this network")
    parser.add_argument("--configuration", default="3d_fullres", help="of the plans (default: 3d_fullres)")
    args = parser.parse_args(argv)
    code = run(parser.prog, args, partial(convert, settings=args.settings, channels=args.channels))
    if code or not args.plans:
        return code
    try:
        path = write_plans(args.plans, args.out, args.configuration)
    except InputError as error:
        print(f"{parser.prog}: error: {error}", file=sys.stderr)
        return 1
    print(
        f"written: {path}; train with: nnUNetv2_train SET {args.configuration} FOLD -p {path.stem} "
        f"-pretrained_weights {args.out}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
