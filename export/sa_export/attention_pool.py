"""AttentionPool as an ONNX node with a function body: one file for every runtime.

Where the TensorRT plugin is registered the node is taken whole; everywhere else the
body runs. The body is independent of the map's size, because TensorRT's parser keeps
one body for every node of that name: windows follow from the map's height and ``parts``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sa_runtime.attention_pool import NORMALIZATIONS, Normalize, windows
from sa_runtime.errors import bad_value

if TYPE_CHECKING:
    import onnx

DOMAIN = "sa_deploy"
OP_TYPE = "AttentionPool"
OPSET = 1
"""Version of the custom domain."""
PLUGIN_VERSION = "1"
ATTRIBUTES = (
    "parts",
    "normalize",
    "plugin_namespace",
    "plugin_version",
)


def attention_pool_node_attributes(
    parts: int, normalize: Normalize, height: int, width: int
) -> dict[str, Any]:
    """Attributes of one AttentionPool node over a map of ``height`` x ``width``.

    Raises:
        InputError: more parts than rows, or fewer than one part.

    >>> attention_pool_node_attributes(6, "sum", 8, 4)["parts"]
    6
    """
    windows(height, parts)
    return {
        "parts": parts,
        "normalize": normalize,
        "plugin_namespace": DOMAIN,
        "plugin_version": PLUGIN_VERSION,
    }


def attention_pool_function(normalize: Normalize, opset: int = 18) -> onnx.FunctionProto:
    """The operator's body in standard operators, sums in FP32 whatever the input type.

    Args:
        normalize: the one normalisation that every node of the graph uses.
        opset: version of the standard operators, the model's own; at least 18.

    Raises:
        InputError: an unknown normalisation, or an opset without ReduceMean's axes input.
    """
    from onnx import AttributeProto, TensorProto, helper

    if normalize not in NORMALIZATIONS:
        raise bad_value("normalize", normalize, f"expected one of {', '.join(NORMALIZATIONS)}")
    if opset < 18:
        raise bad_value("opset", opset, "the body of AttentionPool needs at least 18")

    def constant(name: str, kind: int, values: list[Any], dims: list[int] | None = None) -> Any:
        tensor = helper.make_tensor(name, kind, [len(values)] if dims is None else dims, values)
        return helper.make_node("Constant", [], [name], value=tensor)

    node = helper.make_node
    nodes = [node("Cast", ["X"], ["x32"], to=TensorProto.FLOAT)]
    weighted = "x32"
    if normalize != "none":
        nodes += [
            constant("channels", TensorProto.INT64, [1]),
            constant("pixels", TensorProto.INT64, [2, 3]),
            constant("zero", TensorProto.FLOAT, [0.0], []),
            constant("one", TensorProto.FLOAT, [1.0], []),
        ]
        if normalize == "sum":
            nodes.append(node("ReduceMean", ["x32", "channels"], ["weight"], keepdims=1))
        else:
            nodes += [
                node("ReduceSum", ["x32", "channels"], ["total"], keepdims=1),
                node("ReduceMax", ["total", "pixels"], ["peak"], keepdims=1),
                node("Sub", ["total", "peak"], ["centred"]),
                node("Exp", ["centred"], ["weight"]),
            ]
        nodes += [
            node("ReduceMean", ["weight", "pixels"], ["mean"], keepdims=1),
            node("Equal", ["mean", "zero"], ["uniform"]),
            node("Div", ["weight", "mean"], ["ratio"]),
            node("Where", ["uniform", "one", "ratio"], ["attention"]),
            node("Mul", ["x32", "attention"], ["weighted"]),
        ]
        weighted = "weighted"
    # The windows follow from the map's own height, so that one body serves every map: TensorRT's
    # parser resolves attribute references in Constant but not in AveragePool's kernel_shape.
    parts = node("Constant", [], ["parts"])
    parts.attribute.append(
        AttributeProto(name="value_int", ref_attr_name="parts", type=AttributeProto.INT)
    )
    nodes += [
        parts,
        constant("i0", TensorProto.INT64, [0], []),
        constant("i1", TensorProto.INT64, [1], []),
        constant("last_axis", TensorProto.INT64, [3]),
        constant("column_axis", TensorProto.INT64, [1]),
        constant("scalar", TensorProto.INT64, [], [0]),
        node("Shape", ["X"], ["height1"], start=2, end=3),
        node("Reshape", ["height1", "scalar"], ["height"]),
        node("Div", ["height", "parts"], ["step"]),
        node("Sub", ["parts", "i1"], ["others"]),
        node("Mul", ["step", "others"], ["last_start"]),
        node("Sub", ["height", "last_start"], ["size"]),
        node("Range", ["i0", "parts", "i1"], ["part"]),
        node("Mul", ["part", "step"], ["start"]),
        node("Unsqueeze", ["start", "column_axis"], ["start_column"]),
        node("Range", ["i0", "size", "i1"], ["offset"]),
        node("Add", ["start_column", "offset"], ["rows_of_part"]),
        node("ReduceMean", [weighted, "last_axis"], ["rows"], keepdims=1),
        node("Gather", ["rows", "rows_of_part"], ["windows"], axis=2),
        node("ReduceMean", ["windows", "last_axis"], ["pooled"], keepdims=1),
        constant("parts_last", TensorProto.INT64, [0, 0, -1]),
        node("Reshape", ["pooled", "parts_last"], ["y32"]),
        node("CastLike", ["y32", "X"], ["Y"]),
    ]
    return helper.make_function(
        DOMAIN,
        OP_TYPE,
        ["X"],
        ["Y"],
        nodes,
        [helper.make_opsetid("", opset)],
        attributes=list(ATTRIBUTES),
    )
