"""What carries requests to the server. `base` is the protocol, `http` the one that is built in.

`http` is imported where a client first sends: it loads requests, which takes 80 ms.
"""
