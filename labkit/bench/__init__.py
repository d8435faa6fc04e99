"""Speed and memory of labkit's layers beside those of the libraries that one would use instead.

    python -m labkit.bench lora --out FILE     one subject, its rows as lines of JSON

    timing     steps in turns, medians and their intervals, peak bytes
    lora       LoRALinear, PEFT's layer and loralib's formula
    nf4        NF4 and bitsandbytes; what a code costs the tiny model
    variants   the starts of LoRA's variants, which decompose the weight first
    dora       DoRA beside LoRA at the size of Llama-3.2-1B
    serve      many adapters in one batch, and what a change of adapter takes

A subject is a module here with `arguments(parser)` and `rows(options)`, which yields one dict for
each thing measured. All that is compared is measured in one run on one machine, in turns.
"""
