"""The pages of a lake, for people: who is champion and why, which photos were wrong, what was said of one, what waits.

They only read. Each kind of content is asked of the lake by a module of `monitoring.views`; what is here turns the
answers into HTML, which needs no script. `python -m dlassets.web.pages` serves them, as `dlassets dev` does.
"""
