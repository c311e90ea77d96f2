"""From a command line to a run: `compose` makes and types the config, `check` refuses what types cannot, `identity`
gives it a hash and a name; `hydra_errors` and `arguments` say in one line what is wrong.

Nothing here imports torch: whether a run is already finished must be known in a second. Hydra is imported by `compose`
alone.
"""
