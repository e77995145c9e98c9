"""One explained prediction over HTTP."""
