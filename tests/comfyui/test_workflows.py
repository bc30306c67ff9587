"""The example workflows name only nodes and inputs that exist, as ComfyUI's page saves them, and every needed input is fed.

tests/comfyui/others.json is what ComfyUI 0.3.64 and AnimateDiff-Evolved 1.5.7 declare of their nodes in these workflows; with
COMFYUI_PATH it is compared with the ComfyUI that is there.
"""

import asyncio
import json
from pathlib import Path

import pytest

from meta_animator.comfyui import NODE_CLASS_MAPPINGS
from tests.comfyui.conftest import COMFYUI

HERE = Path(__file__).parent
FOLDER = HERE.parents[1] / "meta_animator" / "comfyui" / "example_workflows"
WORKFLOWS = sorted(FOLDER.glob("*.json"))
WIDGETS = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")
OTHERS = json.loads((HERE / "others.json").read_text())


def declared(node: type) -> dict:
    """{"required": {input: kind}, "optional": ..., "outputs": [kind]} of a node's class, a choice being of kind COMBO."""
    asked = node.INPUT_TYPES()
    kinds = {
        part: {name: "COMBO" if isinstance(told[0], list) else str(told[0]) for name, told in asked.get(part, {}).items()}
        for part in ("required", "optional")
    }
    return kinds | {"outputs": [str(kind) for kind in node.RETURN_TYPES]}


def problems(workflow: dict, known: dict) -> list[str]:
    """What ComfyUI would not load or run as it was meant."""
    found, nodes = [], {node["id"]: node for node in workflow["nodes"]}
    links = {link[0]: link for link in workflow["links"]}
    for node in nodes.values():
        what, told = f"{node['type']} {node['id']}", known.get(node["type"])
        if told is None:
            found.append(f"{what}: no such node")
            continue
        inputs, kinds = {one["name"]: one for one in node["inputs"]}, told["required"] | told["optional"]
        fed = {name for name, one in inputs.items() if one["link"] is not None or "widget" in one}
        found += [f"{what}: no input {name}" for name in inputs if name not in kinds and name != "upload"]
        found += [f"{what}: nothing feeds {name}" for name in told["required"] if name not in fed]
        widgets = [name for name, kind in kinds.items() if kind in WIDGETS]
        widgets += ["upload"] * ("upload" in inputs) + ["what follows a seed"] * ("seed" in kinds)
        if len(node["widgets_values"]) != len(widgets):
            found.append(f"{what}: {len(node['widgets_values'])} values for {len(widgets)} widgets")
        for name, one in inputs.items():
            if one["link"] is not None and name in kinds:
                found += _of_link(what, name, kinds[name], links[one["link"]], nodes, known)
    return found


def _of_link(what: str, name: str, kind: str, link: list, nodes: dict, known: dict) -> list[str]:
    _, source, slot, *_, said = link
    gives = known.get(nodes[source]["type"], {"outputs": []})["outputs"]
    if slot >= len(gives) or not gives[slot] == kind == said:
        return [f"{what}: {name} is {kind}, its link {said} comes from {gives[slot : slot + 1]}"]
    return []


def known_nodes() -> dict:
    return OTHERS | {name: declared(node) for name, node in NODE_CLASS_MAPPINGS.items()}


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_nodes_inputs_and_links_exist(path):
    assert not problems(json.loads(path.read_text()), known_nodes())


def test_what_does_not_exist_is_found():
    workflow = json.loads((FOLDER / "picture.json").read_text())
    control = next(node for node in workflow["nodes"] if node["type"] == "MetaAnimatorApplyControl")
    control["inputs"][3]["name"] = "picture"
    workflow["nodes"][0]["type"] = "CheckpointLoader"
    found = "\n".join(problems(workflow, known_nodes()))
    assert "no input picture" in found and "nothing feeds image" in found and "CheckpointLoader 1: no such node" in found
    assert "vae is VAE, its link VAE comes from []" in found


def test_both_workflows_are_there_and_use_our_nodes():
    used = {path.stem: {node["type"] for node in json.loads(path.read_text())["nodes"]} for path in WORKFLOWS}
    assert used.keys() == {"animatediff", "picture"}
    assert "ADE_AnimateDiffLoaderGen1" in used["animatediff"]
    assert all(set(NODE_CLASS_MAPPINGS) <= types for types in used.values())


@pytest.mark.skipif(not COMFYUI, reason="COMFYUI_PATH names no ComfyUI")
def test_comfyui_declares_these_nodes_so():
    import nodes

    async def load() -> None:
        for name in ("nodes_video", "nodes_images"):
            await nodes.load_custom_node(str(Path(COMFYUI) / "comfy_extras" / f"{name}.py"), module_parent="comfy_extras")
        for folder in (Path(COMFYUI) / "custom_nodes").iterdir():
            if (folder / "animatediff").is_dir():
                await nodes.load_custom_node(str(folder))

    asyncio.run(load())
    there = {name: declared(nodes.NODE_CLASS_MAPPINGS[name]) for name in OTHERS if name in nodes.NODE_CLASS_MAPPINGS}
    assert {name for name in OTHERS if name not in there} <= {name for name in OTHERS if name.startswith("ADE_")}
    assert there == {name: OTHERS[name] for name in there}
