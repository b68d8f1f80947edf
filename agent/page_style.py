"""The status page's style sheet. One column on a phone; nothing is ever wider than the window."""

from __future__ import annotations

import base64
import hashlib

from agent.theme import variables

__all__ = ["STYLE", "STYLE_HASH"]

STYLE = (
    variables()
    + """
*{box-sizing:border-box}
body{font:16px/1.5 system-ui,sans-serif;max-width:76rem;margin:0 auto;padding:1rem;color:var(--text);
background:var(--page);overflow-wrap:anywhere}
h1{font-size:1.4rem;margin:0}h2{font-size:1.15rem;margin:2rem 0 .5rem}h3{font-size:1rem;margin:0 0 .3rem}
p{margin:.3rem 0;max-width:60rem}
a{color:var(--first)}a:focus-visible{outline:3px solid var(--first);outline-offset:2px}
nav a{display:inline-block;padding:.35rem .8rem .35rem 0}
.quiet{color:var(--quiet)}.good{color:var(--third);font-weight:600}.bad{color:var(--second);font-weight:600}
.cards{display:grid;gap:1rem;grid-template-columns:repeat(auto-fill,minmax(min(100%,22rem),1fr))}
.cards,.plain{list-style:none;margin:.5rem 0;padding:0}
.card{border:1px solid var(--grid);border-radius:.5rem;padding:.7rem .9rem}
dl{display:grid;grid-template-columns:fit-content(50%) minmax(0,1fr);gap:.1rem .9rem;margin:0}
dt{color:var(--quiet)}dd{margin:0}
.numbers dd{text-align:right;font-variant-numeric:tabular-nums}
.plain li{padding:.35rem 0;border-top:1px solid var(--grid)}
.plot{margin:0 0 .5rem}.plot p{display:flex;flex-wrap:wrap;justify-content:space-between;gap:0 .8rem;margin:0}
svg{display:block;width:100%;height:1rem}
@media (max-width:40rem){dl:not(.numbers){display:block}dl:not(.numbers) dd{margin:0 0 .4rem}}
.track{fill:var(--grid)}.zero{fill:var(--text)}.faster{fill:var(--third)}.slower{fill:var(--second)}.unsure{fill:var(--first)}
"""
)

# For the Content-Security-Policy: this style sheet, and no other, may be inline.
STYLE_HASH = "sha256-" + base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
