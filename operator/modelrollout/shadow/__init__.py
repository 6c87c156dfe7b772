"""
The comparator: mirrored requests are repeated against both versions, and the answers compared.

A process of its own, off the users' path, beside the operator and never imported by it. It
keeps no payload: what leaves it are counters. Nothing here decides; the operator reads the
counters and bets on them like on all others.
"""
