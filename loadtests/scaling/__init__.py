"""How a sweep scales: what its parts cost, measured; a simulator that puts them together; and what came true of it.

python -m loadtests.scaling            # measures, predicts, compares, writes docs/scaling.*
python -m loadtests.scaling --pages    # writes the pages again from docs/scaling.json
"""
