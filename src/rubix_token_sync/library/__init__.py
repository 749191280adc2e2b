"""What `import rubix_token_sync` gives; see docs/PYTHON.md.

`configuration` turns options into settings and a target; `work` holds the jobs (sync,
verify, check …); `reader` answers from a target; `observers` says who may look on, and
`watchers` are the observers that come with the program: report, metrics, alerts.
"""
