"""What Gunicorn's processes do beyond Gunicorn. Imports nothing: gevent patches the workers after the master has read this."""
