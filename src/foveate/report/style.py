"""One visual language: the colours, type and tables that the report's page and the page of ``foveate app`` share.

A resolution has the same colour wherever it is shown: the sharper, the cooler. Each is seen on white and on black.
"""

BASE = """
:root { color-scheme: light dark; --ink: #1b1f24; --quiet: #59636e; --line: #d1d9e0; --paper: #fff; --well: #f6f8fa;
  --accent: #0969da; --bad: #b42318; --edge: #818b98;
  --r1: #2f81f7; --r4: #1f9d8b; --r16: #c58a1b; --r64: #c0504d; --r256: #a371c9; --gone: #7d8590 }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6edf3; --quiet: #9aa4ae; --line: #3d444d; --paper: #0d1117; --well: #151b23; --accent: #6cb6ff;
    --bad: #ff8f86; --edge: #656d76 }
}
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); margin: 0 auto;
  max-width: 50rem; padding: 2rem 1.25rem 4rem }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 1rem } h2 { font-size: 1.15rem; margin: 2.5rem 0 .5rem }
.headline { font-size: 1.1rem } .quiet, figcaption, small { color: var(--quiet) } small { font-size: .8rem }
.scroll { overflow-x: auto } table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }
td, th { padding: .25rem .6rem .25rem 0; text-align: right; vertical-align: top }
td:first-child, th:first-child { text-align: left } thead th { border-bottom: 2px solid var(--line) }
tbody th { text-align: left; padding-top: 1rem; font-weight: 600; border-bottom: 1px solid var(--line) }
td small { display: block } td.relation { color: var(--quiet); text-align: left }
figure { margin: 1.2rem 0 } figcaption { font-size: .9rem }
pre { background: var(--well); padding: .8rem 1rem; border-radius: 8px; white-space: pre-wrap; overflow-wrap: anywhere }
"""
