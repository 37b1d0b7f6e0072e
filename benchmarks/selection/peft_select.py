"""Times PEFT's own matching on module names; a child of run.ts. Reads {names, cases, repeats} from stdin.

For each case: the time of `check_target_module_exists` over all names, after what PEFT does before its walk (all-linear
made a set of names, lists of 20 and more condensed), and of `get_pattern_key` for the targets where there are
patterns. Models are not built and layers not made: that is matching alone, PEFT's share of which is smallest.
"""

import json
import statistics
import sys
import time
import types

import peft
from peft.tuners.tuners_utils import _find_minimal_target_modules, check_target_module_exists
from peft.utils.other import get_pattern_key


def select(names, linear, case):
    config = types.SimpleNamespace(
        target_modules=None, exclude_modules=None, modules_to_save=None, target_parameters=None,
        layers_to_transform=None, layers_pattern=None, rank_pattern={}, **{},
    )
    config.__dict__.update(case)
    if config.target_modules == "all-linear":
        config.target_modules = set(linear)
    elif isinstance(config.target_modules, list):
        config.target_modules = set(config.target_modules)
    if isinstance(config.target_modules, set) and len(config.target_modules) >= 20:
        suffixes = tuple("." + suffix for suffix in config.target_modules)
        others = [n for n in names if n not in config.target_modules and not n.endswith(suffixes)]
        minimal = _find_minimal_target_modules(config.target_modules, others)
        if len(minimal) < len(config.target_modules):
            config.target_modules = minimal
    targets = [name for name in names if name and check_target_module_exists(config, name)]
    ranks = [config.rank_pattern.get(get_pattern_key(config.rank_pattern.keys(), name), 8) for name in targets] if config.rank_pattern else []
    return len(targets), sum(ranks)


def main():
    work = json.load(sys.stdin)
    results = []
    for case in work["cases"]:
        times = []
        for _ in range(work["repeats"]):
            start = time.perf_counter()
            count, ranks = select(work["names"], work["linear"], case)
            times.append(1000 * (time.perf_counter() - start))
        results.append({"targets": count, "ranks": ranks, "first": times[0], "median": statistics.median(times)})
    print(json.dumps({"versions": {"peft": peft.__version__, "python": sys.version.split()[0]}, "cases": results}))


main()
