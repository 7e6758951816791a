"""What a report adds to the style sheet of all pages."""

from __future__ import annotations

REPORT_STYLE = """
:root { --blue-ink: #2a74bd; --orange-ink: #c8690f; --bad: #b3261e; --good: #1a7f5a;
  --series-1: #2a74bd; --series-2: #c8690f; --series-3: #1a8a78; --series-4: #8b4fb5; --series-5: #b03060;
  --series-6: #6b6b6b; }
@media (prefers-color-scheme: dark) { :root { --blue-ink: #6db1f2; --orange-ink: #f0a04b; --bad: #ff8a80;
  --good: #5fd0a5; --series-1: #6db1f2; --series-2: #f0a04b; --series-3: #55cbb7; --series-4: #c79be8;
  --series-5: #f08cb0; --series-6: #b0b0b0; } }
body { font-variant-numeric: tabular-nums; }
.eyebrow { color: var(--soft); font-size: .8rem; text-transform: uppercase; letter-spacing: .08em; margin: 0 0 .35rem; }
h1 { font-size: 1.9rem; letter-spacing: -.01em; }
h2 { margin-bottom: .5rem; }
h3 { margin: 2rem 0 .5rem; }
h4 { font-size: .95rem; font-weight: 600; margin: 1rem 0 .5rem; overflow-wrap: anywhere; }
.lead { font-size: 1.05rem; max-width: 46rem; overflow-wrap: anywhere; }
.verdict { margin: 1.25rem 0 0; padding: 1rem 1.25rem; background: var(--card); border-radius: .5rem;
  border-left: .3rem solid var(--soft); }
.verdict b { display: block; font-size: 1.15rem; }
.verdict p { max-width: 54rem; }
.verdict.works { border-color: var(--good); } .verdict.works b { color: var(--good); }
.verdict.nothing { border: .15rem solid var(--bad); border-left-width: .6rem; }
.verdict.nothing b { color: var(--bad); font-size: 1.9rem; line-height: 1.2; letter-spacing: .01em; }
.warnings { margin: 1rem 0 0; padding: .6rem 1.25rem; border-left: .3rem solid var(--orange-ink);
  background: var(--card); border-radius: .5rem; font-size: .95rem; overflow-wrap: anywhere; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(8.5rem, 1fr)); gap: 1px; margin: 1rem 0 0;
  background: var(--line); border: 1px solid var(--line); border-radius: .5rem; overflow: hidden; }
.tiles div { background: var(--page); padding: .7rem .9rem; }
.tiles dt { font-size: .8rem; color: var(--soft); line-height: 1.3; }
.tiles dd { margin: 0; font-size: 1.45rem; font-weight: 600; line-height: 1.35; }
.tiles small { display: block; font-size: .8rem; font-weight: 400; color: var(--soft); line-height: 1.35; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); gap: 1rem;
  margin: .75rem 0 0; }
figure { margin: 0; padding: .9rem .9rem .6rem; background: var(--card); border-radius: .5rem; min-width: 0;
  break-inside: avoid; display: flex; flex-direction: column; }
figure:last-child:nth-child(odd) { grid-column: 1 / -1; }
figcaption { font-size: .95rem; line-height: 1.4; margin: 0 0 .5rem; }
figcaption b { font-weight: 600; }
.keys { display: flex; flex-wrap: wrap; gap: .1rem 1rem; font-size: .85rem; color: var(--soft); margin: .15rem 0 0; }
.keys span { overflow-wrap: anywhere; }
.key { display: inline-block; width: 1.75rem; height: .75rem; margin-right: .35rem; vertical-align: -.05rem; }
.key.dot { width: .75rem; }
.key path { fill: none; stroke-width: 2; }
.chart { display: block; width: 100%; max-width: 31rem; height: auto; margin: auto auto 0; stroke-linejoin: round;
  stroke-linecap: butt; }
.chart text { font-family: inherit; }
.wide { overflow-x: auto; margin: .75rem 0 0;
  background-image: linear-gradient(to left, var(--page) 1.5rem, transparent),
  linear-gradient(to left, rgb(128 128 128 / .22), transparent); background-position: 100% 0;
  background-size: 3rem 100%, .7rem 100%; background-repeat: no-repeat; background-attachment: local, scroll; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; line-height: 1.4; margin: .75rem 0 0; }
.wide table { margin: 0; } .held { overflow-x: auto; }
th, td { padding: .3rem .5rem; text-align: right; border-bottom: 1px solid var(--line); vertical-align: baseline; }
th { font-weight: 500; } thead th { color: var(--soft); font-size: .8rem; line-height: 1.3; vertical-align: bottom; }
th:first-child, td:first-child { padding-left: 0; } tr > :last-child { padding-right: 0; }
table.named th:first-child { text-align: left; overflow-wrap: anywhere; min-width: 6.5rem; }
td small { display: block; color: var(--soft); font-size: .8rem; white-space: nowrap; }
.wide td, .wide th { white-space: nowrap; } .wide .named tbody th { white-space: normal; min-width: 9rem; }
table.worded th:not(.word), table.worded td:not(.word) { width: 1%; white-space: nowrap; }
.wide tbody th:first-child, .wide thead th:first-child { position: sticky; left: 0; background: var(--page); }
.wide table.named tbody th:first-child { position: static; }
td.word, th.word { text-align: left; } td.word { overflow-wrap: anywhere; }
tr.marked > * { background: var(--card); } .wide tr.marked > th:first-child { background: var(--card); }
.tag { display: inline-block; font-size: .72rem; font-weight: 500; color: var(--soft); border: 1px solid var(--line);
  border-radius: 1rem; padding: 0 .45rem; margin-left: .4rem; white-space: nowrap; background: var(--page); }
.bad { color: var(--bad); font-weight: 600; } .good { color: var(--good); font-weight: 600; }
.plot { width: 38%; } .bar { display: block; width: 100%; min-width: 7rem; height: 1rem; }
.bar line { stroke-width: 2; } .bar .zero { stroke: var(--line); stroke-width: 1; }
.strip { display: block; width: 100%; min-width: 4rem; max-width: 12rem; height: .4rem; margin: .2rem 0 .1rem;
  border-radius: .2rem; }
.columns { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 19rem), 1fr)); gap: 1rem;
  margin: .75rem 0 0; }
.answers { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 10.5rem), 1fr)); gap: .6rem;
  margin: .5rem 0 1.25rem; }
.answers section { background: var(--card); border-radius: .4rem; padding: .6rem .8rem .7rem; min-width: 0;
  border-top: .2rem solid var(--line); break-inside: avoid; }
.answers .plus { border-color: var(--orange-ink); } .answers .minus { border-color: var(--blue-ink); }
.answers h5 { margin: 0 0 .3rem; font-size: .9rem; } .answers h5 small { font-weight: 400; color: var(--soft); }
.answers p { white-space: pre-wrap; overflow-wrap: anywhere; font-size: .9rem; line-height: 1.5; }
.pair { border-top: 1px solid var(--line); padding: .6rem 0; font-size: .92rem; line-height: 1.45;
  overflow-wrap: anywhere; break-inside: avoid; }
.pair b { float: right; font-weight: 600; margin-left: .75rem; }
.pair .side { margin: .25rem 0 0; padding-left: .6rem; border-left: .2rem solid var(--orange-ink);
  white-space: pre-wrap; color: var(--soft); }
.pair .side.other { border-color: var(--blue-ink); }
.token { display: inline-block; border-radius: .25rem; padding: 0 .35rem; margin: .1rem .25rem .1rem 0;
  background: rgb(var(--orange) / .22); white-space: pre-wrap; overflow-wrap: break-word; max-width: min(12rem, 27vw); }
.token.down { background: rgb(var(--blue) / .22); }
tr.faint { opacity: .55; }
.facts { display: grid; grid-template-columns: minmax(6rem, max-content) minmax(0, 1fr); gap: .3rem 1.25rem;
  font-size: .9rem; line-height: 1.45; margin: .75rem 0 0; }
.facts dt { color: var(--soft); overflow-wrap: anywhere; max-width: 14rem; }
.facts dd { margin: 0; overflow-wrap: anywhere; }
code, pre { font: .85rem/1.5 ui-monospace, "SF Mono", Menlo, Consolas, monospace; overflow-wrap: anywhere; }
pre { white-space: pre-wrap; background: var(--card); border-radius: .4rem; padding: .8rem 1rem; margin: .5rem 0 0; }
details { margin: .75rem 0 0; } summary { cursor: pointer; color: var(--soft); font-size: .9rem; }
@media (max-width: 30rem) {
  body { padding: 1.5rem 1rem 3rem; } h1 { font-size: 1.6rem; }
  figure { margin: 0 -.4rem; padding: .8rem .5rem .4rem; } figcaption { padding: 0 .4rem; }
  .answers { grid-template-columns: minmax(0, 1fr); } .bar { min-width: 3rem; } .held td small { white-space: normal; }
  th, td { padding: .3rem .35rem; }
  .facts { grid-template-columns: minmax(0, 1fr); gap: 0; } .facts dd { margin-bottom: .5rem; }
}
@media print {
  :root { color-scheme: light; } body { max-width: none; padding: 0; font-size: 12px; } nav { display: none; }
  h2, h3, h4 { break-after: avoid; } .wide, .held { overflow: visible; } .charts { grid-template-columns: 1fr 1fr; }
}
"""
