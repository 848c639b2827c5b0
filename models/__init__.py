"""What learns, and which of them serves: streams, online and batch members, the blend, the store.

Maths files know river or scikit-learn and nothing of the disk; doors (`stream`, `store`,
`checkpoint`, `predictions`) touch one tool each. This room never meets `power`.
"""
