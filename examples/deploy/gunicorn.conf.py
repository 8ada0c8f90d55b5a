"""gunicorn -c gunicorn.conf.py wsgi_app:application."""

bind = "127.0.0.1:8000"
workers = 4
worker_class = "gthread"  # or "sync", with threads = 1; for "gevent" see gunicorn_gevent.conf.py
threads = 4
preload_app = True  # or False: the client takes both

# Longer than close_timeout (2 s), so that a worker that is told to stop can send what it has.
graceful_timeout = 10

# gunicorn 25.1 made a socket for its command gunicornc the default: in a home, which not all have.
control_socket_disable = True
