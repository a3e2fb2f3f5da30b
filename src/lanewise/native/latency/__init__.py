"""One image at a time: channels in the lanes instead of images.

The engine's usual way has sixteen images in a vector, so that one image costs as much as sixteen.
Here a value of one image is *blocked*: [C/16][H][W][16], sixteen neighbouring channels in a vector.

    forms.py       how a value lies in memory
    planner.py     collects calls; finds values, weights that are laid out anew, and memory
    rules.py       the table from layer kind to kernels, and what kinds without an own kernel do
    products.py    convolutions and full connections: output channels in the lanes
    channelwise.py layers that treat every channel by itself: the usual kernels, channels in lanes
    packing.py     weights as these kernels read them, normalisations folded in
    emission.py    calls → LLVM IR: tasks shared out among threads, barriers
    python_call.py the way from Python for small networks: a builtin of CPython
    program.py     what the user holds
    compile.py     all of it in order
"""
