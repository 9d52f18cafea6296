"""The page in the browser: see `semseg.serve.app.make_app`."""
