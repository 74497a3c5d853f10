"""A server of clips: OpenAI's video interface over HTTP, and a page. Needs the extra ``server``.

The HTTP process computes nothing: the model is in a process of its own (:mod:`.engine`), jobs are in SQLite
(:mod:`.store`), their files in a folder each. See docs/server.md.
"""
