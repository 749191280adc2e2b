"""The audit: is each token genuine, who holds it, does anyone else hold it, is its content safe?

What proves a token genuine: limits of levels, the table of numbers, verdicts, signatures.
What the rows of all nodes say together: `rules`, one file a rule; `findings` keeps what was
found through its life; `run` is one audit from its lease to its end; `questions` answers and
`decisions` records what a person decided.
"""
