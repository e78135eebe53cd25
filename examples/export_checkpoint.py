"""A checkpoint into an ONNX file, compared with the network on labelled people."""

from sa_deploy import export_model

artefact = export_model("run/checkpoint.pt", "exported", validation="world")
print(artefact.path, {name: report.map_drop for name, report in artefact.parity.items()})
