"""TensorRT: engines from ONNX files, the fused operator, and the device memory they run in.

==================  ===================================================================
``flavour``         what differs between TensorRT 10, 11 and RTX
``graph``           what an ONNX file says before TensorRT reads it
``options``         what a user may ask of an engine
``build``           ONNX -> engine
``timing``          measurements of layers, in a file that builds share
``sidecar``         what is known about an engine, in a JSON file beside it
``engines``         engines on disk, built again only when something has changed
``execution``       a deserialised engine, and the slots that batches run in
``plugin``          AttentionPool as a TensorRT plugin
``tactics``         how its kernel is cut
``ptx``             its kernel as PTX
``kernel``          the kernel itself, in Triton
``device``          memory, streams and graphs of one GPU
``device_cuda``     the same through cuda-bindings
``device_pycuda``   the same through pycuda
==================  ===================================================================
"""
