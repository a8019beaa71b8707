"""OpenAI's Responses API: requests -> jobs, events -> the events of a response, and a store.

    schema.py       what is accepted
    tool_schema.py  of tools
    tools.py        the tools of a request
    reading.py      a request and its history -> a job
    listing.py      the input of a request as clients may list it
    items.py        the items of a response, as they come into being
    running.py      those that the server runs a tool for
    response.py     the response object
    writing.py      what a chat gives -> events, and the response that they add up to
    compacting.py   a conversation -> an item that stands for it
    facts.py        by what the items are known again that clients send back
    store.py        responses that are kept
    storing.py      the thread that keeps them
    exchange.py     one request and its response
    background.py   responses that nobody waits for, and their events for who comes back
    routes.py       all of it over HTTP
    operations.py   all of it described

All but the routes knows no HTTP.
"""
