"""What is said of the machine, and what is given back to it."""

import weakref

from bit_speech.machine import give_back_memory


class Node:
    pass


def test_what_hangs_in_a_cycle_is_freed():
    node = Node()
    node.itself = node
    known = weakref.ref(node)
    del node
    assert known() is not None
    give_back_memory()
    assert known() is None
