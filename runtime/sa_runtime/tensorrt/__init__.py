"""TensorRT: engines from ONNX files, the fused operator, and the device memory they run in.

==================  ============================================================"""
