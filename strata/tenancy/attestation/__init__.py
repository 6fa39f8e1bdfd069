"""«How is my data separated from your other customers'?», answered by the live database, now.

`probes.py` tries the walls as an outsider would, `checks.py` runs probes and inspection and names what passed,
`statement.py` puts it in words for the tenant and signs it.
"""
