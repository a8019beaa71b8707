"""Anthropic's Messages API: requests -> jobs, events -> content blocks, and a count of tokens.

    schema.py    what is accepted
    tools.py     the tools of a request
    history.py   the messages of a request -> the model's
    reading.py   a request -> a job
    blocks.py    content blocks, as they come into being
    running.py   those that the server runs a tool for
    writing.py   what a chat gives -> events, and the message that they add up to
    memory.py    what was sampled for the blocks that clients send back
    routes.py    all of it over HTTP

All but the routes knows no HTTP.
"""
