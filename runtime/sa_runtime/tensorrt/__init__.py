"""TensorRT: engines from ONNX files, the fused operator, and the device memory they run in.

================  =====================================================================
``probe``         the GPUs of this machine, asked of the driver itself
``flavour``       what differs between TensorRT 10, 11 and RTX
``graph``         what an ONNX file says before TensorRT reads it
``build``         ONNX -> engine
``sidecar``       what is known about an engine, in a JSON file beside it
``cache``         engines that rebuild themselves, once
``plugin``        AttentionPool as a TensorRT plugin
``tactics``       how its kernel is cut
``ptx``           its kernel as PTX
``kernel``        the kernel itself, in Triton
``device``        memory, streams and graphs of one GPU, through pycuda or cuda-bindings
================  =====================================================================
"""
