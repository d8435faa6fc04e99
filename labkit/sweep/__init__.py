"""Many fine-tunes of the tiny model, each with its learning rate tuned, kept as rows of JSON.

    python -m labkit.sweep ranks --out FILE --processes 12

    frame       one run, many runs in several processes, the choice of a learning rate
    ranks       LoRA at ranks from 1 to 64 beside full fine-tuning
    dora        LoRA, DoRA, and both on a base in 4 bits
    variants    the variants of LoRA
    slower      LoRA at half of its best rate, the control beside them
    forgetting  what a fine-tune costs: old skills, refusals and unseen letters
    spectra     adapters and full updates, read: directions, intruders, cuts
    maps        what the update of one map holds, beside controls
    overlaps    how far the kept updates of `spectra` share their directions

A sweep is a module here with `groups(options)`, `rates(spec)` and `adapt(model, spec)`. Where a
run is to say more than losses and scores, or to act between its steps, it has an
`observer(model, spec)`; where it needs another loss or groups of parameters, a
`fitting(model, spec)`. It may also say what a run is scored on, `scored(spec)`, and how it is run,
`job(options)`.
"""
