"""OpenAI's /v1/chat/completions.

schema.py    what a request may say
memory.py    what was sampled, for when a client sends it back
history.py   messages -> harmony's
reading.py   a request -> jobs
writing.py   the events of its replies -> chunks, and the completion that they add up to
routes.py    both, over HTTP
"""
