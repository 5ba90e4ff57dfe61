"""A page in a headless browser, where there is one."""

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
    page = path.read_text(encoding="utf-8")
    added = f"<script>let result; {script}; document.title = JSON.stringify(result);</script></body>"
    run = path.with_name("run.html")
    run.write_text(page.replace("</body>", added), encoding="utf-8")
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", f"file://{run}"]
    dom = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=120).stdout
    return json.loads(html.unescape(re.search(r"<title>(.*?)</title>", dom, re.DOTALL)[1]))
