"""Latency, throughput, memory and accuracy of artefacts on runtimes, measured side by side.

Every contender lives in a process of its own (:mod:`worker`), so that load time and memory are its
own and no runtime's threads disturb another's; :mod:`run` lets them take turns.
"""
