"""How well a model finds people: mean average precision, and how often the first match is right."""

from sa_deploy import evaluate

report = evaluate("run/model.onnx", "synthetic", "world")
print(f"mAP {report.mAP:.1%}, rank-1 {report.rank(1):.1%}")
