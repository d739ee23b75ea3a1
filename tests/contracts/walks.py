"""The walks every contract is checked on. A new walk, preset or kind of attention joins by being listed here."""

from itertools import product

from foveate.presets import bottom_up, deep, hourglass, top_down, vanilla
from foveate.spec import EXPANDINGS, POOLINGS, Block, Fovea, HierarchySpec, Zoom


def small(walk: str, **shape: object) -> HierarchySpec:
    return HierarchySpec.parse(walk, **({"width": 8, "heads": 2, "feed_forward": 12} | shape))


WALKS = {
    # presets
    "vanilla": small(vanilla(2)),
    "top_down": small(top_down(5, (1, 4, 16))),
    "bottom_up": small(bottom_up(5, (1, 4, 16))),
    "deep": small(deep(6, (1, 2, 8))),
    "hourglass": small(hourglass(5, (1, 4))),
    "hourglass_64": small(hourglass(7, (1, 4, 16, 64))),
    # picked by hand
    "nested": small("1@1 1@4 2@16 1@4 1@1"),
    "odd_strides": small("1@1 1@3 1@6 1@3 1@1"),
    "stride_5": small("1@1 2@5 1@1", pooling="attention", expanding="repeat"),
    "no_fine_layers": small("0@1 1@2 0@4 1@2 0@1", pooling="mean"),
    "down_twice": small("1@1 1@4 1@1 1@2 1@4 1@1", expanding="attention"),
    "windows": small("1@1:window5 1@4 1@16:window1 1@1:window3"),
    "window_above_pool": small("2@1:window1 2@3:window4 1@1:window17", pooling="mean", expanding="repeat"),
    "runs_in_a_row": small("1@1 1@1:window4 1@4 1@4:window2 0@4 1@1"),
    "grouped_queries": small("1@1 1@4:window3 1@1:window6", width=16, heads=4, kv_heads=2),
    "one_key_head": small("1@1 1@2 1@1", width=12, heads=3, kv_heads=1, pooling="attention", expanding="attention"),
    "widths": small(
        "1@1 1@3 1@6 1@1",
        levels={3: {"width": 12, "heads": 3}, 6: {"width": 16, "heads": 4, "kv_heads": 2, "feed_forward": 20}},
    ),
    "sinks": small("1@1:sink3 1@2:sink2 1@1:sink5"),
    "sinks_and_groups": small("1@1:sink1 1@1:sink9", width=16, heads=4, kv_heads=2),
    # foveas
    "fovea": small("2@1:fovea4,groups=4,scales=2/4"),
    "fovea_keep": small("1@1:fovea4,groups=3,scales=2/6,tail=keep", width=16, heads=4, kv_heads=2),
    "fovea_walk": small(
        "1@1:fovea6,groups=2,scales=3/6,tail=keep 2@2:fovea2,groups=4,scales=2 1@1:fovea3,groups=4,scales=3"
    ),
    # what families of pretrained models have: post-norms, norms of queries and keys, biases, soft caps, ropes
    "qwen": small(
        "1@1:window5 1@2 1@1", heads=4, kv_heads=2, head_dim=6, block=Block(qk_norm="head", biases=("qkv", "o", "mlp"))
    ),
    "olmo": small("1@1 1@3:sink2 1@1", kv_heads=1, block=Block(norms="post", qk_norm="all")),
    "gemma": small(
        "1@1:window3,rope=local 1@2 1@1:fovea4,groups=4,scales=2/4 1@1:rope=local",
        head_dim=6,
        block=Block(norms="both", qk_norm="head", activation="gelu_pytorch_tanh", soft_cap=0.7),
        ropes={"local": {"theta": 20.0}, "default": {"theta": 1e4, "divide": [1.0, 3.0, 8.0]}},
    ),
    "phi": small(
        "1@1:rope=none 1@2:fovea2,groups=4,scales=2,rope=part 1@1:rope=part",
        head_dim=8,
        block=Block(activation="gelu", soft_cap=2),
        ropes={"part": {"theta": 100.0, "rotated": 4, "divide": [1, 2]}},
    ),
    # zooms
    "zoom": small("2@1:zoom3,sinks=2,block=8,groups=4/2,keep=2/3,opened=2,thumbnails=4"),
    "zoom_walk": small(
        "1@1:window4 1@2:zoom2,sinks=0,block=4,groups=2,keep=all,opened=1,thumbnails=0 "
        "1@1:zoom1,sinks=1,block=8,groups=2,keep=2,opened=2,spread=1.5",
        width=16,
        heads=4,
        kv_heads=2,
    ),
    # every way to move between levels, to a wider level and to one of the same width
    **{
        f"{pooling}_{expanding}": small(
            "1@1 1@3 1@6 1@1", pooling=pooling, expanding=expanding, levels={6: {"width": 12, "heads": 3}}
        )
        for pooling, expanding in product(POOLINGS, EXPANDINGS)
    },
}

# zooms have no step at fixed addresses: what is opened where is decided anew
STEPPED = [name for name, spec in WALKS.items() if not any(isinstance(run.attention, Zoom) for run in spec.runs)]


def whole_length(spec: HierarchySpec) -> int:
    """Tokens for two complete units of the coarsest level and an unfinished third, and for all scales of a fovea."""
    tokens = 2 * spec.strides[-1] + spec.strides[-1] // 2 + 5
    for run in spec.runs:
        fovea = run.attention
        if isinstance(fovea, Fovea):
            last = fovea.scales[-1] * (4 if fovea.tail == "log" else 1)
            tokens = max(tokens, run.stride * (2 * fovea.block + (fovea.groups + 1) * last))
        if isinstance(run.attention, Zoom):
            plan = run.attention.plan
            tokens = max(tokens, run.stride * (plan.near + plan.sinks + 3 * plan.block + 3))
    return tokens
