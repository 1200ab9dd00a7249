"""The champion over HTTP: every form in which photos are asked about, one answer, and a page to try it on."""
