"""The page's style sheet: one column, tabular figures, light and dark, pictures without smoothing."""

LIGHT = """
  --paper: #fdfdfb; --panel: #f5f5f1; --ink: #1b1d20; --soft: #63686f; --rule: #e2e2dc; --accent: #1f56b8;
  --good: #1a7a48; --bad: #b3302d; --mark: #e0f0e4; --warn: #fbf1da; --warn-rule: #d9a32b;
  --d0: #2f6bd8; --d1: #d06a08; --d2: #2a9461; --d3: #b3429a; --d4: #8a6d1f;
  --d5: #1189a0; --d6: #c73e3e; --d7: #6f57c9; --d8: #5c6670; --d9: #6f8d00;"""
DARK = """
  --paper: #131518; --panel: #1c1f24; --ink: #e7e8ea; --soft: #9da2aa; --rule: #31353c; --accent: #8ab4ff;
  --good: #6fcf97; --bad: #ff8a80; --mark: #1d3a29; --warn: #332a14; --warn-rule: #a97f22;
  --d0: #7aa7ff; --d1: #ffa657; --d2: #5fcf97; --d3: #e58bd0; --d4: #d3b659;
  --d5: #56cfe1; --d6: #ff8585; --d7: #b3a1ff; --d8: #a4afba; --d9: #b9d84c;"""
MONO = 'ui-monospace, "SF Mono", "Cascadia Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace'
SANS = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif'

COLORS = f"""
:root {{ color-scheme: light dark; --mono: {MONO}; --sans: {SANS};{LIGHT} }}
@media (prefers-color-scheme: dark) {{ :root {{{DARK} }} }}
"""

TEXT = """
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.55 var(--sans); }
main { max-width: 1240px; margin: 0 auto; padding: 56px 32px 96px; }
h1 { font-size: 34px; line-height: 1.15; letter-spacing: -0.02em; font-weight: 650; margin: 0 0 10px; }
h2 { font-size: 23px; letter-spacing: -0.012em; font-weight: 640; margin: 0 0 12px; }
h3 { font-size: 16px; font-weight: 640; margin: 36px 0 8px; }
h4 { font-size: 14px; font-weight: 600; margin: 0; line-height: 1.35; }
section { margin-top: 68px; scroll-margin-top: 16px; }
p { margin: 0 0 12px; max-width: 82ch; }
a { color: var(--accent); text-decoration-thickness: 1px; text-underline-offset: 3px; }
small { font-size: 12px; color: var(--soft); font-weight: 400; }
code, pre { font-family: var(--mono); font-size: 12.5px; }
pre {
  background: var(--panel); padding: 14px 16px; border-radius: 8px; overflow-x: auto; line-height: 1.45;
  margin: 10px 0;
}
.lead { font-size: 18px; color: var(--soft); max-width: 90ch; }
.note { font-size: 14px; color: var(--soft); }
nav {
  display: flex; flex-wrap: wrap; gap: 4px 20px; margin-top: 22px; padding: 11px 0;
  border: solid var(--rule); border-width: 1px 0; font-size: 14px;
}
nav a { text-decoration: none; color: var(--soft); }
nav a:hover { color: var(--accent); }
.name { display: flex; align-items: baseline; }
.swatch { display: inline-block; width: 10px; height: 10px; border-radius: 3px; margin-right: 8px; flex: none; }
.scroll { overflow-x: auto; margin: 14px 0; }
.banner {
  background: var(--warn); border-left: 4px solid var(--warn-rule); padding: 14px 18px;
  border-radius: 0 8px 8px 0; margin-top: 28px; font-size: 14.5px;
}
.banner ul { margin: 6px 0 0; padding-left: 20px; }
.checks { display: grid; grid-template-columns: repeat(auto-fit, minmax(250px, 1fr)); gap: 14px; margin: 16px 0; }
.check { background: var(--panel); border-radius: 10px; padding: 14px 16px; font-size: 14px; }
.check h4::before { margin-right: 8px; font-weight: 700; }
.check.equal h4::before { content: "✓"; color: var(--good); }
.check.unequal h4::before { content: "✗"; color: var(--bad); }
.check.open h4::before { content: "?"; color: var(--soft); }
.check code { overflow-wrap: anywhere; }
.check div { margin-top: 4px; color: var(--soft); }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(230px, 1fr)); gap: 12px 28px; margin: 14px 0; }
.facts { font-size: 14px; }
.facts dt { color: var(--soft); font-size: 12.5px; }
.facts dd { margin: 0; overflow-wrap: anywhere; }
.guide { columns: 2; column-gap: 44px; font-size: 14.5px; padding-left: 18px; margin: 14px 0; }
.guide li { break-inside: avoid; margin-bottom: 9px; }
details { margin: 10px 0; }
summary { cursor: pointer; font-size: 14.5px; padding: 4px 0; }
details details { margin-left: 18px; }
footer { margin-top: 72px; padding-top: 16px; border-top: 1px solid var(--rule); font-size: 13px; color: var(--soft); }
"""

TABLES = """
table { border-collapse: collapse; font-size: 14px; line-height: 1.35; font-variant-numeric: tabular-nums lining-nums; }
.numbers { min-width: min(100%, 560px); }
.numbers.wide { width: 100%; }
.numbers th, .numbers td { padding: 9px 0 9px 20px; text-align: right; vertical-align: top; white-space: nowrap; }
.numbers thead th {
  font-weight: 600; vertical-align: bottom; border-bottom: 1.5px solid var(--ink); padding-top: 4px;
}
.numbers thead th:not(:first-child) { white-space: normal; }
.numbers thead small { display: block; white-space: nowrap; }
.numbers tr.groups th { border: 0; color: var(--soft); font-weight: 500; font-size: 12.5px; padding-bottom: 2px; }
.numbers tr.groups div { border-bottom: 1px solid var(--rule); text-align: center; padding-bottom: 3px; }
.numbers tbody tr + tr > * { border-top: 1px solid var(--rule); }
.numbers td small { display: block; }
.numbers th:first-child, .numbers td:first-child {
  text-align: left; padding-left: 0; padding-right: 10px; position: sticky; left: 0; background: var(--paper);
}
.numbers tbody th { font-weight: 560; }
.numbers tbody th small { display: block; padding-left: 18px; }
.numbers .text { text-align: left; white-space: normal; min-width: 110px; max-width: 70ch; }
td.best data {
  background: var(--mark); color: var(--good); font-weight: 680; padding: 1px 5px; margin-right: -5px;
  border-radius: 4px;
}
td.tie data::before { content: "≈\\00a0"; color: var(--soft); }
td.gone, td.gone a { color: var(--soft); text-decoration: none; }
"""

CHARTS = """
.panels { display: grid; grid-template-columns: repeat(auto-fill, minmax(300px, 1fr)); gap: 22px 32px; margin: 14px 0; }
.panels figure { margin: 0; max-width: 420px; min-width: 0; }
.panels figcaption { font-size: 13px; font-weight: 600; margin-bottom: 4px; overflow-wrap: anywhere; }
.legend { display: flex; flex-wrap: wrap; gap: 4px 22px; font-size: 13.5px; max-width: none; }
svg { display: block; width: 100%; height: auto; overflow: visible; font-size: 11px; }
svg { font-variant-numeric: tabular-nums; }
svg text { fill: var(--soft); }
svg .label, svg .value { fill: var(--ink); text-anchor: end; }
svg .grid { stroke: var(--rule); stroke-width: 1; }
svg .line { fill: none; stroke: currentColor; stroke-width: 1.6; stroke-linejoin: round; opacity: 0.9; }
svg .interval { stroke: currentColor; stroke-width: 6; opacity: 0.3; stroke-linecap: round; }
svg .point { fill: currentColor; }
svg .seed { fill: currentColor; opacity: 0.5; }
svg .floor { stroke: var(--soft); stroke-width: 1.5; stroke-dasharray: 2 2; }
svg .ceiling { stroke: var(--ink); stroke-width: 1.5; }
svg .area { fill: currentColor; opacity: 0.55; }
svg .uniform { stroke: var(--ink); stroke-width: 1; stroke-dasharray: 3 3; }
.bars {
  display: grid; grid-template-columns: minmax(90px, max-content) 1fr max-content; gap: 8px 14px;
  font-size: 13.5px; margin: 18px 0 22px; font-variant-numeric: tabular-nums;
}
.bars > div { display: grid; grid-template-columns: subgrid; grid-column: 1 / -1; align-items: center; }
.bar { display: flex; height: 24px; min-width: 0; }
.bar span {
  overflow: hidden; white-space: nowrap; text-overflow: ellipsis; padding: 0 7px; line-height: 24px;
  font-size: 12px; color: var(--paper); border-radius: 3px; border-right: 2px solid var(--paper);
}
.bar span.thin { padding: 0; }
"""

PICTURES = """
img { image-rendering: pixelated; display: block; border-radius: 4px; height: auto; }
.pictures th {
  text-align: left; font-weight: 560; padding: 4px 16px 4px 0; vertical-align: middle; position: sticky; left: 0;
  background: var(--paper); min-width: 104px; max-width: 170px;
}
.pictures th small { display: block; padding-left: 18px; }
.pictures td { padding: 4px; text-align: center; vertical-align: top; }
.pictures img { width: 116px; max-width: none; }
.cards {
  display: grid; grid-template-columns: repeat(auto-fill, minmax(min(var(--card), 100%), 1fr)); gap: 16px;
  margin: 16px 0;
}
.card { background: var(--panel); border-radius: 10px; padding: 14px 16px; min-width: 0; }
.card .row { display: flex; flex-wrap: wrap; gap: 10px; margin-top: 10px; }
.card figure { margin: 0; width: 104px; font-size: 12px; line-height: 1.35; }
.card figure img, .hole { width: 104px; margin-bottom: 5px; }
.card figcaption > span { display: block; }
.card figcaption > .name { display: flex; }
.card .swatch { width: 8px; height: 8px; margin-right: 5px; }
.hole {
  display: grid; place-items: center; height: 104px; border: 1px dashed var(--rule); border-radius: 4px;
  color: var(--soft);
}
.kept th { position: static; min-width: 0; text-align: center; padding: 4px; font-size: 13px; }
.kept th small { padding-left: 0; }
.maps { display: flex; flex-wrap: wrap; gap: 8px 6px; margin: 8px 0 14px; }
.maps figure { margin: 0; width: 56px; text-align: center; font-size: 11px; line-height: 1.4; color: var(--soft); }
.maps img { width: 56px; }
.codes { display: grid; grid-template-columns: repeat(auto-fill, minmax(268px, 1fr)); gap: 14px 24px; }
.codes { margin: 8px 0 18px; }
.codes figure, .matrices figure { margin: 0; min-width: 0; }
.codes figcaption, .matrices figcaption { font-size: 13px; font-weight: 600; margin-bottom: 4px; }
.codes figure > div { display: flex; flex-wrap: wrap; gap: 3px; }
.codes img { width: 31px; border-radius: 2px; }
.matrices { display: flex; flex-wrap: wrap; gap: 18px 40px; align-items: flex-start; margin: 10px 0 18px; }
.matrices .scroll { margin: 0; }
.matrix { font-size: 12.5px; }
.matrix th { font-weight: 450; color: var(--soft); text-align: right; padding: 2px 8px 2px 0; white-space: nowrap; }
.matrix thead th { vertical-align: bottom; padding: 2px 0 4px; text-align: center; }
.matrix thead span { writing-mode: vertical-rl; transform: rotate(180deg); display: inline-block; }
.matrix td {
  width: 36px; min-width: 28px; height: 26px; text-align: center; padding: 0 3px; border: 2px solid var(--paper);
  background: var(--panel);
}
.matrix td.hit { background: color-mix(in srgb, var(--good) calc(var(--share, 0%) * 0.4), var(--panel)); }
.matrix td.miss[style] {
  background: color-mix(in srgb, var(--bad) calc(25% + var(--share) * 0.6), var(--panel)); font-weight: 600;
}
.matrix td.miss:not([style]) { color: var(--soft); }
.right { color: var(--good); }
.wrong { color: var(--bad); }
.unscored { color: var(--soft); }
.question { display: flex; gap: 16px; align-items: flex-start; }
.question > img { width: 96px; flex: none; }
.question .scroll { margin: 0; flex: 1; }
.answers { font-size: 13px; width: 100%; }
.answers th { font-weight: 560; text-align: left; vertical-align: bottom; color: var(--soft); font-size: 12px; }
.answers th { padding: 0 14px 5px 0; line-height: 1.25; }
.answers td { padding: 3px 14px 3px 0; vertical-align: top; white-space: nowrap; }
.answers td:first-child { white-space: normal; min-width: 140px; }
"""

NARROW = """
@media (max-width: 700px) {
  main { padding: 32px 16px 64px; }
  h1 { font-size: 27px; }
  section { margin-top: 48px; }
  .guide { columns: 1; }
  .pictures img { width: 76px; }
  .pictures th { min-width: 92px; max-width: 112px; font-size: 12.5px; padding-right: 8px; }
  .numbers th:first-child, .numbers td:first-child { min-width: 112px; max-width: 140px; white-space: normal; }
  .question { flex-direction: column; }
  .question .scroll { width: 100%; }
  .bars { grid-template-columns: 1fr max-content; }
  .bars > div { row-gap: 3px; }
  .bar { grid-column: 1 / -1; grid-row: 2; }
}
@media print {
  body { font-size: 11pt; }
  nav { display: none; }
  .card, figure, tr { break-inside: avoid; }
}
"""

STYLE = COLORS + TEXT + TABLES + CHARTS + PICTURES + NARROW
