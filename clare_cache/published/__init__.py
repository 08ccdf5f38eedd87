"""Numbers from the literature: result tables as tidy data, with where they stand.

Knows no run. Values stand as printed, misprints included; `tables.yaml` says what is odd.
"""
