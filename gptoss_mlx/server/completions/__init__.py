"""OpenAI's older /v1/completions: text goes on as the model would, without harmony's messages.

schema.py    what a request may say
reading.py   a request -> prompts and how to draw
work.py      one completion, as something that a run can run
writing.py   its pieces -> chunks, and the completion that they add up to
routes.py    all of it, over HTTP
"""
