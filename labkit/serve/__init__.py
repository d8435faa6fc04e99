"""One base, many adapters: merged, gathered, checked, exported, served and paid for.

    merging     an adapter folded into the base: into which one, and what rounding loses
    gather      a batch in which each row has its own adapter, in one pass of the base
    bank        a base whose linear maps hold slots; adapters go in and out of them
    shelf       adapter folders by name, each with its card
    swapping    how long it takes to change the adapter, by three ways of PEFT's and by ours
    export      the layout that vLLM loads, its limits, and the command
    engine      requests in, small batches through the bank, answers out
    app         the engine behind HTTP, on this machine
    load        many requests at once, and how long each took
    economics   what one tenant costs
    recorded    what `python -m labkit.bench serve` measured
    tenants     two invented customers, trained while one waits
    walk        the checklists of lessons, with a run of one's own

The order is that of the import arrows.
"""
