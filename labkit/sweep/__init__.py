"""Many fine-tunes of the tiny model, each with its learning rate tuned, kept as rows of JSON.

    python -m labkit.sweep ranks --out FILE --processes 12

    frame       one run, many runs in several processes, the choice of a learning rate
    ranks       LoRA at ranks from 1 to 64 beside full fine-tuning
    forgetting  what a fine-tune costs: old skills, refusals and unseen letters
    spectra     adapters and full updates, read: directions, intruders, cuts
    overlaps    how far the kept updates of `spectra` share their directions

A sweep is a module here with `groups(options)`, `rates(spec)` and `adapt(model, spec)`, and, where
a run is to say more than losses and scores, `observer(model, spec)`. It may also say what a run is
scored on, `scored(spec)`, and how it is run, `job(options)`.
"""
