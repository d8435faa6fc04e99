"""labkit: the few tools behind the notebooks.

Read in this order; each module is one idea and imports only modules above it.

    project      where the repository, its data and its public address are
    table        a table as text and as HTML
    intervals    the mean of a few runs with its interval
    linears      what a frozen linear map applies, whatever stores its weight
    lora         a trained update of low rank beside a frozen linear map
    fused        the same for chosen parts of one fused matrix
    readings     what the recorded adapters say: directions, intruders, overlaps, cuts
    verdicts     what the recorded runs about DoRA say, with intervals and costs
    fair         what the recorded runs of LoRA's variants say, each at its own rate
    directions   rows of a weight as lengths and directions, and DoRA written plainly
    stretched    the element-wise end of DoRA, in one kernel, and what its slope keeps
    dora         row lengths and directions of a weight, learned apart
    variants     other scales, rates and starts for the same layer
    adalora      a rank for each layer, found by pruning while it trains
    lowrank      what a low rank can hold, and how far the first step goes at each rank
    saved        bytes that a forward pass keeps for the backward pass
    spectra      singular values of an update, read from its two thin factors
    codes        the few numbers that a weight may become: NF4, FP4, INT4, the 8-bit map
    blocks       one scale for every few values, the nearest level, two codes in a byte
    double       double quantisation: the scales themselves in 8 bits
    nf4          a weight in NF4, and a frozen linear map that stores it so
    fitted       codes fitted to normal weights in blocks, by iteration
    usage        which levels weights use, and how large the error is
    outliers     what one outlier does to its block
    paged        which optimizer states bitsandbytes puts into pages
    world        an invented world: names, letters, facts
    skills       questions about it with one right answer, and what is held out
    corpus       the text the tiny model learnt from, and its tokenizer
    data         JSONL files in, masked token batches out
    hub          files from a model hub or a package, or a sentence that says why not
    folders      a model folder, looked at before it is loaded
    smollm       a real small model, from a hub or out of a package
    weights      python -m labkit.weights: real weights, and how normal they are
    sizes        bytes of parameters by kind, and what training holds for them
    models       one model tier, loaded in 4 bits and described
    loss         the next-token loss, plainly and without the table of logits
    svg          small drawings that follow the theme
    checkpoint   a run from which it goes on bit for bit
    history      what a run is told and what it tells
    train        one loop
    prepare      what prepare_model_for_kbit_training changes
    evaluate     answers, scores, and an evaluation that decides
    rounding     a model whose weights have been rounded, and what that costs it
    adapters     an adapter folder with its card
    interchange  adapter folders as PEFT writes and reads them
    updates      the pairs of factors that an adapter is made of, by layer and projection
    adapter_files  the updates in an adapter file that a learner brings
    beside       a variant beside PEFT's: the same start, a few steps
    machine      which GPU, driver and versions a row was measured with
    memory       where fine-tuning memory goes: closed form, dry run, measurement
    serve        one base, many adapters: merged, gathered, exported, served
    figures      the pictures; the only place that imports matplotlib
    widgets      controls; the only module that imports ipywidgets
    explore      a picture or a table that answers to sliders, with a twin that needs none
    browse       explorers over adapters: spectra and overlaps of any map
    budget       what a run needs, serves and costs: pure functions under controls
    grounds      sentences about LoRA's variants whose numbers are worked out
    guide        which way to adapt a model: five questions, an answer, its reasons
    watch        a training run as it goes
    exercises    judges, hints, quiz and the progress board
    pins         what is installed, against the pins or the ranges
    doctor       python -m labkit.doctor: what this machine can run
    pretrain     python -m labkit.pretrain: makes the tiny model
    finetune     python -m labkit.finetune: the fine-tune without a browser
    measure      python -m labkit.measure: the real size, on a GPU
    sweep        python -m labkit.sweep: many tuned fine-tunes, kept as rows
    bench        python -m labkit.bench: our layers beside the libraries', in turns
    notebook     one source file as two notebooks
    build        python -m labkit.build: makes the notebooks
"""
