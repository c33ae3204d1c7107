"""The soak: the live chain under a steady load with restarts, watched for whatever grows without bound.

python -m tests.soak --minutes 30 --rate 500 --seed 1
"""
