"""The page that people keep open: `rubix-token-sync serve` (docs/WEB.md).

It shows what the public library answers and has no questions of its own.  Needs the extra
``web`` (Starlette, uvicorn); nothing of it is loaded by a sync.
"""
