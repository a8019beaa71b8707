"""`gptoss-mlx serve`: OpenAI's and Anthropic's APIs over one model, several requests at once.

    job.py       what every API's request becomes: one conversation to be replied to
    run.py       a job's reply in a thread of its own, read by a coroutine
    host.py      the model: loaded when needed, unloaded when idle, its health
    problems.py  errors, and the shape that each API gives them
    recall.py    what was sampled for what clients send back
    sealing.py   the same, as a text that the client keeps
    browsing.py  what is shown of calls that the server runs
    app.py       routes, and what every request passes: key, host, size
    about.py     health, metrics, the OpenAPI document, the model: what is no API of its own
    metrics.py   figures for Prometheus
    openapi.py   what the APIs declare -> the document
    body.py      a request's body -> JSON that nothing stumbles over
    guarding.py  who may call: Host, Origin, key
    sse.py       server-sent events, heartbeats among them
    chat_completions/  completions/  messages/  responses/   one package an API

An API's package turns JSON into a job and events into JSON; it does not know HTTP.
"""
