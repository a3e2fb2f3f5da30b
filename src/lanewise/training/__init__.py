"""TRAINING: from images and a network to a trained model in a run folder.

    recipe.py       every setting of a training, with defaults chosen for the data; schedule.py
    choice.py       the network that fits the data, and the data's classes brought to a network
    order.py        which image stands where in an epoch: a function of (seed, epoch)
    loop.py         epochs as a few native calls each; checkpoint.py is where it stands
    scores.py       accuracy and its interval, per class, confusion, worst mistakes
    files.py        atomic writes; tensors.py  named arrays with a checksum
    run_folder.py   what a run folder holds, written and read; report.py  its page
    progress.py     what a person sees meanwhile;  interrupt.py  Ctrl-C that never tears a step
    start.py        the driver: net + data + recipe → trained; start anew or go on
    model.py        what the user holds: `train`, `load`, `Model`;  estimator.py  for scikit-learn

What may live here: recipes, schedules, the loop, scores, run folders, models. What may not:
kernels, decoding, anything that draws except the run's own report.
May import: errors, flags, net, size, native, data, numpy, safetensors; rich only for a terminal,
scikit-learn only in `estimator`. The engine is imported inside the functions that compile.
"""
