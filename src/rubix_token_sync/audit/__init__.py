"""The audit: is each token genuine, who holds it, does anyone else hold it, is its content safe?

`rules` says what is wrong, one file a rule; `findings` keeps what was found through its life;
`run` is one audit from its lease to its end; `questions` answers and `decisions` records what
a person decided.
"""
