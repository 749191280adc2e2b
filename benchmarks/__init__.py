"""How fast, how large, how steady: the scenarios of docs/PERFORMANCE.md as one command.

    python -m benchmarks run                  every scenario, 1 warm-up and 5 runs
    python -m benchmarks run life --target postgresql --scale 0.1 --runs 3
    python -m benchmarks fleet 50 20000       make a fleet and say where it is
    python -m benchmarks render RESULT.json   table and picture once more

Ratios are taken within one round: the bare limits and the program take turns on
the same data, so a machine that slows down slows both.  Everything is measured
through the command line that users run; exactness is checked with ``verify``
after each scenario.

The peers, the picture and PostgreSQL need the dependency group ``bench``.
"""
