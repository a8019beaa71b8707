"""harmony: what goes into a prompt, and what comes out of a completion.

conversations.py   messages and setups to render
completions.py     completions parsed, with the parser's promises checked
golden/            recorded events; make_golden.py writes them
"""
