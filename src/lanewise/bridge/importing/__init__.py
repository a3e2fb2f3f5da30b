"""IMPORT: networks that were not written in the notation, as graphs of Lanewise's layers.

A PyTorch module is built without memory for its weights and run once on an image without values
(torch's device "meta"), while every call is noted (`record`, `user_code`); the calls then become
layers by one table (`functions`). An ONNX file's nodes become layers likewise (`onnx_rules`). Both
speak to a `Builder`, which knows what a tensor shows of which layer's value. What has no layer here
becomes a `Foreign` one of the size that PyTorch or ONNX gives it.
"""
