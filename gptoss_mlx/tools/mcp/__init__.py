"""Tools of MCP servers that speak over stdio (https://modelcontextprotocol.io).

tool.py     the configuration; a server's tools as functions
session.py  one server: its process, and the conversation with it
"""

from gptoss_mlx.tools.mcp.tool import McpTool, load_mcp

__all__ = ["McpTool", "load_mcp"]
