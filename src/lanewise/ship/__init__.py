"""LEAVING HOME: a network with its weights in a form that other programs run.

Here lives the way to ONNX (`onnx_model`, with a rule for every kind of layer in `onnx_rules`), and
`convert`. May import: net, size, native, bridge, data, training. onnx only inside functions.
"""
