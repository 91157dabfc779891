"""An HTTP server for a model and a gallery: embed, verify and search; needs the extra `serve`."""
