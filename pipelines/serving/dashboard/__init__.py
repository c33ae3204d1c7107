"""The dashboard: what needs a decision, every series, and whether all is well. Pushed to the browser as it happens.

`store` follows the tables, `feed` tells every open page what changed, `pages` show it, `desks` decide.
"""
