"""Files over HTTP: an ASGI application, and routes for FastAPI apps."""
