"""How fast a model is on this machine, and how fast stock mlx-lm is there on the same checkpoint.

    workload.py     what is measured: contexts, batches, ids
    sides.py        what can be measured: a side completes prompts
    ours.py         this package, through its engine
    theirs.py       stock mlx-lm
    measuring.py    one side, from loading to the last reading
    child.py        the process in which that happens
    turns.py        such processes, one side after the other
    roofline.py     what the memory's bandwidth allows
    machine.py      where all this ran
    results.py      medians, ratios, JSON
    text.py         tables and notes
    plot.py         bars

It does not know the command line.
Importing it imports no MLX: a child first says how MLX is to run.
"""
