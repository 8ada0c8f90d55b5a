"""gunicorn -c gunicorn.conf.py wsgi_app:application."""

bind = "127.0.0.1:8000"
workers = 4
worker_class = "gthread"  # or "sync"; for "gevent", see the page on deployment
threads = 4
preload_app = True  # or False: the client takes both

# Longer than close_timeout (2 s), so that a worker that is told to stop can send what it has.
graceful_timeout = 10
