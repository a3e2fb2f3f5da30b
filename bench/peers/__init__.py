"""The others that run in a process of their own: one file for each, `work.py` for what they get.

Keras, tinygrad, ncnn and MNN bring thread pools, settings of the environment and versions of
packages that would disturb each other, and PyTorch. So each is served (`serve.py`): it builds the
network from our own text and weights, answers what it computed, then times its own turns.
"""
