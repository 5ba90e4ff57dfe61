"""Pages in a headless browser, where there is one."""

import html
import json
import re
import shutil
import subprocess

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_a_browser = pytest.mark.skipif(not CHROMIUM, reason="needs a Chromium to run the page's script")


def evaluated(path, script):
    """What ``script``, run at the end of the page, assigns to ``result``."""
    return all_evaluated([path], script)[0]


def all_evaluated(paths, script):
    """The same of several pages, which are frames of one: a start of the browser takes longer than they do."""
    added = f"<script>let result; {script}</script></body>"
    pages = (html.escape(path.read_text(encoding="utf-8").replace("</body>", added)) for path in paths)
    told = "<script>onload = () => document.title = JSON.stringify(Array.from(frames, f => f.eval('result')))</script>"
    run = paths[0].with_name("run.html")
    run.write_text(told + "".join(f'<iframe srcdoc="{page}"></iframe>' for page in pages), encoding="utf-8-sig")
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", f"file://{run}"]
    dom = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=120).stdout
    return json.loads(html.unescape(re.search(r"<title>(.*?)</title>", dom, re.DOTALL)[1]))
