"""The verbs: one module each, `commands/VERB.py` with one function VERB; its docstring is the help.

A verb's module imports at its top only what its arguments need; everything heavy is imported inside the function, so
that `spraydry --help` is fast. It gets the repository from `session`, prints through `terminal`, and returns its exit
code (None is 0). Modules named in NOT_VERBS are shared by the verbs.
"""

NOT_VERBS = ("composing", "listing", "moving", "progress", "session", "terminal", "transferring")
