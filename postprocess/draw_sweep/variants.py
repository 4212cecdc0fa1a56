"""Beyond the theory (arXiv 2602.06208): optimisers, batches, data and losses side by side, with all singular values of the first
layer."""
import numpy as np

from draw_sweep import draws_sweep
from draw_sweep.blocks import LOOK, NAME, at_end, measured_blocks
from style import GREY, headline, plt


def variant_of(member):
    """What is different from gradient descent on whitened data with squared error."""
    given = member.parameters
    if given.get("loss.kind") == "cross_entropy":
        return "cross-entropy"
    if given.get("data.whiten") == "false":
        return "not whitened"
    return {"gd": "gradient descent", "sgd": f"batches of {given.get('train.batch')}", "momentum": "momentum 0.9",
            "adam": "Adam"}.get(given["train.optimizer"], given["train.optimizer"])


@draws_sweep
def draw_variants(sweep, runs, axis):
    if "train.optimizer" not in sweep.keys:
        return
    members = measured_blocks(sweep, runs)
    names = list(dict.fromkeys(variant_of(member) for member, _, _ in members))
    if len(names) < 2 or len(members) > 40:
        return
    yield "variants", draw_numbers(sweep, members, names)
    if all(group.measured("singular_value") for _, _, group in members):
        yield "variants_singular_values", draw_values(sweep, members, names)


def kinds(members):
    return list(dict.fromkeys(run.setting("model.activation") for _, run, _ in members))


def draw_numbers(sweep, members, names):
    """Points: what is outside of the block, and the tail of the change after 2K values; a column for each layer."""
    layers = max(group["outside_energy"].shape[1] for _, _, group in members)
    figure, axes = plt.subplots(2, layers, figsize=(3.3 * layers + 1.6, 5.6), sharex=True, sharey="row", squeeze=False)
    places = {name: place for place, name in enumerate(names)}
    shifts = dict(zip(kinds(members), np.linspace(-0.2, 0.2, len(kinds(members)))))
    for member, run, group in members:
        kind = run.setting("model.activation")
        place = places[variant_of(member)] + shifts[kind]
        label = NAME.get(kind, kind) if places[variant_of(member)] == 0 else None
        for layer in range(layers):
            for row, quantity in enumerate(("outside_energy", "dw_tail")):
                axes[row, layer].plot(place, at_end(group, quantity, layer), "o", markersize=6, label=label,
                                      color=LOOK.get(kind, (GREY,))[0])
    for layer in range(layers):
        axes[0, layer].set_title(f"layer {layer + 1}")
        axes[1, layer].set_xticks(range(len(names)), names, rotation=35, ha="right")
        for panel in axes[:, layer]:
            panel.set_yscale("log")
    axes[0, 0].set_ylabel("part of the change\noutside of the block")
    axes[1, 0].set_ylabel(r"tail of the change, $\sigma_{2K+1}/\sigma_1$")
    axes[0, 0].legend(loc="best", fontsize=7)
    headline(figure, numbers_message(members, names), f"{sweep.name}. At the end; blocks are those of the first gradient (of the first batch).")
    return figure


def numbers_message(members, names):
    """Names what stays in the subspace of the start, and how low the rank of the change is everywhere."""
    worst = {name: max(at_end(group, "outside_energy", 0) for member, _, group in members if variant_of(member) == name)
             for name in names}
    stays = [name for name in names if worst[name] < 0.1]
    leaves = [name for name in names if worst[name] >= 0.1]
    return f"Within the first gradient's block (less than 0.1 outside, layer 1): {', '.join(stays) or 'none'};\n" \
        f"not: {', '.join(leaves) or 'none'}"


def draw_values(sweep, members, names):
    """All singular values of the first layer at the end, a panel for each variant."""
    columns = min(len(names), 3)
    figure, axes = plt.subplots(-(-len(names) // columns), columns, figsize=(3.3 * columns + 0.6, 5.4), sharex=True, sharey=True,
                                squeeze=False)
    for name, panel in zip(names, axes.flat):
        for member, run, group in members:
            kind = run.setting("model.activation")
            if variant_of(member) == name:
                values = group["singular_value"][-1, 0]
                panel.plot(np.arange(1, len(values) + 1), values, "o-", markersize=3, linewidth=0.8, color=LOOK.get(kind, (GREY,))[0],
                           label=NAME.get(kind, kind))
        panel.axhline(1, color=GREY, linewidth=0.8, linestyle=":")
        panel.set_title(name)
        panel.set_yscale("log")
    for panel in axes[-1]:
        panel.set_xlabel("index $i$")
    for row in axes:
        row[0].set_ylabel(r"$\sigma_i(W_1)/\varepsilon$")
    axes[0, 0].legend(loc="best", fontsize=7)
    headline(figure, values_message(members, names), f"{sweep.name}. At the end; dotted: the start.")
    return figure


def values_message(members, names):
    """How many values have doubled, the most of all activations."""
    count = {name: max(int((group["singular_value"][-1, 0] > 2).sum()) for member, _, group in members if variant_of(member) == name)
             for name in names}
    return f"Singular values of $W_1$ that at least double, of {members[0][2]['singular_value'].shape[2]}:\n" \
        + ", ".join(f"{name} {number}" for name, number in count.items())
