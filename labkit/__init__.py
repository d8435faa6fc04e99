"""labkit: the few tools behind the notebooks.

Read in this order; each module is one idea and imports only modules above it.

    project     where the repository, its data and its public address are
    table       a table as text and as HTML
    linears     what a frozen linear map applies, whatever stores its weight
    spectra     singular values of an update, read from its two thin factors
    lora        a trained update of low rank beside a frozen linear map
    fused       the same for chosen parts of one fused matrix
    variants    other scales, rates and starts for the same layer
    adalora     a rank for each layer, found by pruning while it trains
    world       an invented world: names, letters, facts
    skills      questions about it with one right answer, and what is held out
    corpus      the text the tiny model learnt from, and its tokenizer
    data        JSONL files in, masked token batches out
    hub         files from a model hub or a package, or a sentence that says why not
    folders     a model folder, looked at before it is loaded
    smollm      a real small model, from a hub or out of a package
    sizes       bytes of a model's parameters by kind
    models      one model tier, loaded in 4 bits and described
    loss        the next-token loss, plainly and without the table of logits
    svg         small drawings that follow the theme
    figures     the pictures; the only place that imports matplotlib
    checkpoint  a run from which it goes on bit for bit
    history     what a run is told and what it tells
    train       one loop
    prepare     what prepare_model_for_kbit_training changes
    evaluate    answers and scores
    adapters    an adapter folder with its card
    widgets     controls; the only module that imports ipywidgets
    explore     a picture or a table that answers to sliders, with a twin that needs none
    watch       a training run as it goes
    exercises   judges, hints, quiz and the progress board
    pins        what is installed, against the pins or the ranges
    doctor      python -m labkit.doctor: what this machine can run
    pretrain    python -m labkit.pretrain: makes the tiny model
    finetune    python -m labkit.finetune: the fine-tune without a browser
    measure     python -m labkit.measure: the real size, on a GPU
    notebook    one source file as two notebooks
    build       python -m labkit.build: makes the notebooks
"""
