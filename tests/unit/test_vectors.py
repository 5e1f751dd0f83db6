"""Vectors in memory: the nearest is found as plain arithmetic finds it, within bounds, quickly."""

import math
import random
import struct
import subprocess
import sys
import time

import numpy as np

from llm_gate.storage.vectors import Span, VectorIndex, VectorRow

HERE, THERE = b"h" * 32, b"t" * 32
NOW_MS = 1_000
MIB = 1024 * 1024


def chance_of(seed):
    return random.Random(seed)  # noqa: S311 - the same in every run


def row(number, vector, *, expires_ms=NOW_MS + 1, place=None):
    packed = struct.pack(f"<{len(vector)}f", *vector)
    return VectorRow(
        number=number, place=place or number.to_bytes(32, "big"), expires_ms=expires_ms, vector=packed
    )


def put(index, rows, *, where=HERE, generation=1, is_whole=True):
    span = index.span(where, generation)
    index.add(where, rows, span=span, is_whole=is_whole, at_ms=NOW_MS)


def numbers(found):
    return [int.from_bytes(place, "big") for place, _ in found]


def some(chance, dimensions=8):
    return [chance.gauss(0, 1) for _ in range(dimensions)]


def test_the_nearest_are_those_of_plain_arithmetic():
    """For any vectors, of any length, those with the greatest cosines come first."""
    chance = chance_of(7)
    index = VectorIndex(most_bytes=MIB)
    vectors = [some(chance) for _ in range(200)]
    put(index, [row(number, vector) for number, vector in enumerate(vectors, 1)])
    for _ in range(50):
        asked = some(chance)

        def cosine(vector, asked=asked):
            return sum(map(float.__mul__, vector, asked)) / math.hypot(*vector) / math.hypot(*asked)

        expected = sorted(range(200), key=lambda each: -cosine(vectors[each]))[:3]
        found = index.nearest(HERE, asked, NOW_MS)
        assert numbers(found) == [each + 1 for each in expected]
        assert abs(found[0][1] - cosine(vectors[expected[0]])) < 1e-6


def test_what_has_expired_and_what_is_elsewhere_is_not_found():
    """Neither an expired row nor one of another neighbourhood or size is offered."""
    index = VectorIndex(most_bytes=MIB)
    put(index, [row(1, [1, 0], expires_ms=NOW_MS), row(2, [0, 1])])
    put(index, [row(3, [1, 0])], where=THERE)
    assert numbers(index.nearest(HERE, [1, 0], NOW_MS)) == [2]
    assert index.nearest(HERE, [1, 0, 0], NOW_MS) == []
    assert index.nearest(b"x" * 32, [1, 0], NOW_MS) == []
    assert index.nearest(HERE, [0, 0], NOW_MS) == []
    assert index.nearest(HERE, [float("inf"), 0], NOW_MS) == []


def test_a_place_has_one_vector_the_newest():
    """A row that comes again takes its older one's seat, whichever of them is read first."""
    index = VectorIndex(most_bytes=MIB)
    place = b"p" * 32
    put(index, [row(5, [0, 1], place=place), row(3, [1, 0], place=place)])
    assert index.nearest(HERE, [0, 1], NOW_MS) == [(place, 1.0)]


def test_what_is_forgotten_is_not_found_and_the_rest_is():
    """Whatever row is forgotten, in any order, all others keep their vectors."""
    chance = chance_of(3)
    index = VectorIndex(most_bytes=MIB)
    vectors = {number: some(chance) for number in range(1, 41)}
    put(index, [row(number, vector) for number, vector in vectors.items()])
    for number in chance.sample(sorted(vectors), 40):
        index.forget(HERE, number.to_bytes(32, "big"))
        del vectors[number]
        assert all(numbers(index.nearest(HERE, vectors[each], NOW_MS))[0] == each for each in vectors)
    assert index.nearest(HERE, some(chance), NOW_MS) == []


def test_it_knows_which_rows_it_lacks():
    """It tells the newest and oldest number it has, and whether there are any from before."""
    index = VectorIndex(most_bytes=MIB)
    assert index.span(HERE, 1) == Span(generation=1)
    put(index, [row(7, [1, 0]), row(9, [0, 1])], is_whole=False)
    assert index.span(HERE, 1) == Span(generation=1, oldest=7, newest=9, is_whole=False)
    put(index, [row(4, [1, 1]), VectorRow(number=12, place=b"x" * 32)])
    assert index.span(HERE, 1) == Span(generation=1, oldest=4, newest=12, is_whole=True)


def test_a_cleared_store_empties_it():
    """A new generation of the store leaves nothing, and rows that were read under the old one are not taken in."""
    index = VectorIndex(most_bytes=MIB)
    put(index, [row(7, [1, 0])])
    old = index.span(HERE, 1)
    assert index.span(HERE, 2) == Span(generation=2)
    index.add(HERE, [row(8, [1, 0])], span=old, is_whole=True, at_ms=NOW_MS)
    assert index.nearest(HERE, [1, 0], NOW_MS) == []
    assert index.size_bytes == 0


def test_it_stays_within_its_bytes_and_the_least_used_go():
    """However many neighbourhoods there are, the bound holds, and what was asked for last stays."""
    chance = chance_of(5)
    index = VectorIndex(most_bytes=64 * 1024)
    put(index, [row(1, some(chance, 64))])
    for number in range(2, 300):
        put(index, [row(number, some(chance, 64))], where=number.to_bytes(32, "big"))
        assert index.nearest(HERE, some(chance, 64), NOW_MS) != []
        assert index.size_bytes <= 64 * 1024
    gone = (2).to_bytes(32, "big")
    assert index.nearest(gone, some(chance, 64), NOW_MS) == []
    assert index.span(gone, 1) == Span(generation=1)


def test_of_one_that_is_too_large_the_newest_stay():
    """A neighbourhood that has no room by itself keeps its newest rows, and does not ask for the others again."""
    chance = chance_of(5)
    index = VectorIndex(most_bytes=100_000)
    vectors = [some(chance, 64) for _ in range(1000)]
    for start in range(0, 1000, 100):
        rows = [row(number + 1, vectors[number]) for number in range(start, start + 100)]
        put(index, rows, is_whole=False)
        assert index.size_bytes <= 100_000
    assert numbers(index.nearest(HERE, vectors[999], NOW_MS))[0] == 1000
    assert index.span(HERE, 1).is_whole
    assert numbers(index.nearest(HERE, vectors[0], NOW_MS))[0] != 1


def test_expired_rows_make_room_first():
    """Where there is no room, what has expired goes before what has not."""
    chance = chance_of(5)
    index = VectorIndex(most_bytes=40_000)
    good = [some(chance, 64) for _ in range(20)]
    put(index, [row(number + 1, vector) for number, vector in enumerate(good)])
    stale = [row(number, some(chance, 64), expires_ms=NOW_MS) for number in range(100, 300)]
    put(index, stale)
    assert [numbers(index.nearest(HERE, vector, NOW_MS))[0] for vector in good] == list(range(1, 21))


def test_ten_thousand_vectors_are_compared_in_a_few_milliseconds():
    """One look among 10,000 vectors of 384 numbers is no work worth speaking of."""
    chance = np.random.default_rng(1)
    index = VectorIndex(most_bytes=64 * MIB)
    vectors = chance.standard_normal((10_000, 384)).astype("<f4")
    put(
        index,
        [
            VectorRow(
                number=n + 1, place=n.to_bytes(32, "big"), expires_ms=NOW_MS + 1, vector=vector.tobytes()
            )
            for n, vector in enumerate(vectors)
        ],
    )
    asked = vectors[1234].tolist()
    took_s = []
    for _ in range(20):
        started_s = time.perf_counter()
        found = index.nearest(HERE, asked, NOW_MS)
        took_s.append(time.perf_counter() - started_s)
    assert numbers(found)[0] == 1234
    # The least, since a busy machine says nothing of the work itself.
    assert min(took_s) < 0.01


def test_numpy_is_loaded_by_those_who_compare_only():
    """A gateway that keeps answers by their exact words alone never loads numpy."""
    code = (
        "import sys, llm_gate.bootstrap.caching, llm_gate.storage.cache_redis; print('numpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
