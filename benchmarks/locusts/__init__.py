"""Locust as a load client: `driving` starts it, the rest runs inside it, beside `locustfile.py`.

`generator` is what one process sends and sees, `collector` brings the samples of all processes into
one file. They know gevent and no Locust; `locustfile.py` ties them to Locust's events.
"""
