"""Nodes for ComfyUI: a link to this folder in its custom_nodes is all that it needs.

    ln -s /path/to/Meta-Animator/meta_animator/comfyui ComfyUI/custom_nodes/meta_animator

ComfyUI runs this file under a name of its own. The package that it belongs to is the one that the link leads into, whether or not
it is installed.
"""

import importlib.util
import sys
from pathlib import Path

if "meta_animator" not in sys.modules:
    _package = Path(__file__).resolve().parents[1]
    _spec = importlib.util.spec_from_file_location(
        "meta_animator", _package / "__init__.py", submodule_search_locations=[str(_package)]
    )
    sys.modules["meta_animator"] = importlib.util.module_from_spec(_spec)
    _spec.loader.exec_module(sys.modules["meta_animator"])

from meta_animator.comfyui.registration import comfy_entrypoint, first_interface

NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS = first_interface()

__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS", "comfy_entrypoint"]
