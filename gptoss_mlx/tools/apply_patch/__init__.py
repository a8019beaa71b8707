"""The apply_patch tool: files changed in the format that the models were trained on.

tool.py   calls: preview, run, undo
patch.py  the format, and where a change fits
files.py  what may be changed, and all of it or nothing
"""

from gptoss_mlx.tools.apply_patch.tool import ApplyPatchTool

__all__ = ["ApplyPatchTool"]
