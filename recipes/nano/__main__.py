"""`python -m recipes.nano STAGE ... --work DIR [--scale full]`: the recipe, stage by stage or all of it."""

from __future__ import annotations

import argparse
import importlib
from dataclasses import fields, replace
from pathlib import Path

import torch

from recipes.nano.settings import settings

STAGES = ("texts", "speech", "codes", "pace", "decoder", "encoder", "talker", "ablation", "export", "judge")


def main() -> None:
    """Run the stages asked for, in the recipe's order."""
    parser = argparse.ArgumentParser(prog="python -m recipes.nano", description=__doc__)
    parser.add_argument("stages", nargs="+", choices=(*STAGES, "all"))
    parser.add_argument(
        "--work", type=Path, required=True, help="where everything is kept; runs resume there"
    )
    parser.add_argument("--scale", default="full", choices=("full", "gpu", "smoke"))
    parser.add_argument("--packages", type=Path, default=Path("/"), help="root of unpacked Debian packages")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="change a setting")
    parser.add_argument("--model", type=Path, help="judge this checkpoint instead of the work folder's")
    given = parser.parse_args()
    s = settings(given.work, given.scale)
    kinds = {f.name: type(getattr(s, f.name)) for f in fields(s)}
    for item in given.set:
        name, _, value = item.partition("=")
        s = replace(s, **{name: kinds[name](value)})
    torch.set_num_threads(s.threads)
    torch.manual_seed(s.seed)
    for stage in STAGES:
        if stage in given.stages or "all" in given.stages:
            module = importlib.import_module(f"recipes.nano.{stage}")
            if stage == "texts":
                module.make(s, given.packages)
            elif stage == "judge":
                module.make(s, given.model)
            else:
                module.make(s)


main()
