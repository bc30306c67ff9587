"""ComfyUI's classes of the nodes in nodes.py: those of its first interface, which needs nothing imported, and of its third."""

from typing import Any

from meta_animator.comfyui.nodes import CATEGORY, NODES, Input, Node


def first_interface() -> tuple[dict[str, type], dict[str, str]]:
    """(NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS)"""
    return {node.id: _plain_class(node) for node in NODES}, {node.id: node.title for node in NODES}


def _plain_class(node: Node) -> type:
    def input_types(cls: type) -> dict[str, dict[str, tuple]]:
        kinds: dict[str, dict[str, tuple]] = {"required": {}, "optional": {}}
        for one in node.inputs:
            kinds["optional" if one.optional else "required"][one.name] = _declared(one)
        return kinds

    def run(self: Any, **inputs: Any) -> tuple:
        return node.run(**inputs)

    body: dict[str, Any] = {
        "INPUT_TYPES": classmethod(input_types), "RETURN_TYPES": tuple(kind for _, kind in node.outputs),
        "RETURN_NAMES": tuple(name for name, _ in node.outputs), "FUNCTION": "run", "CATEGORY": CATEGORY,
        "DESCRIPTION": node.says, "run": run,
    }  # fmt: skip
    if node.changed is not None:
        body["IS_CHANGED"] = classmethod(lambda cls, **inputs: node.changed(**inputs))
    return type(node.id, (), body)


def _declared(one: Input) -> tuple:
    told = {"tooltip": one.says} if one.says else {}
    if one.options is not None:
        return one.options(), told
    return one.kind, told | _values(one)


def _values(one: Input) -> dict[str, Any]:
    values = {} if one.default is None else {"default": one.default}
    if one.limits is not None:
        values |= dict(zip(("min", "max", "step"), one.limits, strict=True))
    return values


async def comfy_entrypoint() -> Any:
    """The extension of ComfyUI's third interface."""
    from comfy_api.latest import ComfyExtension, io

    class MetaAnimator(ComfyExtension):
        async def get_node_list(self) -> list[type]:
            return [schema_class(node, io) for node in NODES]

    return MetaAnimator()


def schema_class(node: Node, io: Any) -> type:
    """A ComfyNode. io   of comfy_api.latest"""

    def define_schema(cls: type) -> Any:
        return io.Schema(
            node_id=node.id, display_name=node.title, category=CATEGORY, description=node.says,
            inputs=[_schema_input(one, io) for one in node.inputs],
            outputs=[io.Custom(kind).Output(display_name=name) for name, kind in node.outputs],
        )  # fmt: skip

    def execute(cls: type, **inputs: Any) -> Any:
        return io.NodeOutput(*node.run(**inputs))

    body = {"define_schema": classmethod(define_schema), "execute": classmethod(execute)}
    if node.changed is not None:
        body["fingerprint_inputs"] = classmethod(lambda cls, **inputs: node.changed(**inputs))
    return type(node.id, (io.ComfyNode,), body)


def _schema_input(one: Input, io: Any) -> Any:
    told = {"optional": one.optional, "tooltip": one.says or None}
    widgets = {"INT": io.Int, "FLOAT": io.Float, "STRING": io.String}
    if one.options is not None:
        return io.Combo.Input(one.name, options=one.options(), **told)
    if one.kind in widgets:
        return widgets[one.kind].Input(one.name, **told, **_values(one))
    return io.Custom(one.kind).Input(one.name, **told)
