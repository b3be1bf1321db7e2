"""How `report.html` looks: its style sheet, with a light and a dark set of colours; paper always gets the light one.

Series have Okabe and Ito's hues ("Color Universal Design", 2008), which people with colour vision deficiencies tell
apart, darkened or lightened until each stands out 3 : 1 from the page (WCAG 2.2, 1.4.11); letters stand out 4.5 : 1
(1.4.3). `s0` ... are series, `h1` ... the shades of a confusion matrix, and `on1` ... the letters on them.
"""

from __future__ import annotations

LIGHT = {
    "page": "#ffffff",
    "card": "#f6f8fa",
    "ink": "#1b1f24",
    "quiet": "#57606a",
    "line": "#d0d7de",
    "link": "#0a5c99",
    "warn": "#9a3b00",
    "warned": "#fff4e5",
    "bar": "#9dbfdb",
    "s0": "#0072b2",
    "s1": "#d55e00",
    "s2": "#008a64",
    "s3": "#b8568f",
    "s4": "#946a00",
    "s5": "#2b82b8",
    "s6": "#1b1f24",
    "s7": "#6e7781",
    "h1": "#e1edf7",
    "h2": "#c3dbee",
    "h3": "#93bfe0",
    "h4": "#69a6d3",
    "h5": "#1f6aa5",
    "h6": "#0b4a7d",
    "on1": "#1b1f24",
    "on2": "#1b1f24",
    "on3": "#1b1f24",
    "on4": "#1b1f24",
    "on5": "#ffffff",
    "on6": "#ffffff",
}
DARK = {
    "page": "#12161b",
    "card": "#1a2027",
    "ink": "#e6e9ec",
    "quiet": "#a3abb4",
    "line": "#36404a",
    "link": "#7fc0f2",
    "warn": "#ffb374",
    "warned": "#33251a",
    "bar": "#35617f",
    "s0": "#56b4e9",
    "s1": "#ee7d3c",
    "s2": "#2bbf95",
    "s3": "#e39cc5",
    "s4": "#f0b429",
    "s5": "#8fb0ff",
    "s6": "#e6e9ec",
    "s7": "#98a2ac",
    "h1": "#1d2f40",
    "h2": "#203e5a",
    "h3": "#23527a",
    "h4": "#2a6a9b",
    "h5": "#7db8e6",
    "h6": "#b9defa",
    "on1": "#e6e9ec",
    "on2": "#e6e9ec",
    "on3": "#e6e9ec",
    "on4": "#ffffff",
    "on5": "#12161b",
    "on6": "#12161b",
}

DASHES = ("none", "7 3", "2 3", "9 3 2 3", "12 3", "4 2", "2 2 6 2", "1 2")


def style_sheet() -> str:
    """All of the report's CSS."""
    series = "".join(
        f".s{place}{{--c:var(--s{place})}}.curve.s{place}{{stroke-dasharray:{dashes}}}"
        for place, dashes in enumerate(DASHES)
    )
    shades = "".join(f".h{shade}{{fill:var(--h{shade})}}.on{shade}{{fill:var(--on{shade})}}" for shade in range(1, 7))
    return (
        f":root{{color-scheme:light;{_variables(LIGHT)}}}"
        f"@media screen and (prefers-color-scheme:dark){{:root{{color-scheme:dark;{_variables(DARK)}}}}}"
        f"{_PAGE}{_CHARTS}{series}{shades}{_PHONE}{_PRINT}"
    )


def _variables(colours: dict[str, str]) -> str:
    return "".join(f"--{name}:{colour};" for name, colour in colours.items())


_PAGE = """
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%;text-size-adjust:100%}
body{margin:0;background:var(--page);color:var(--ink);
font:1rem/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue","Noto Sans",Arial,sans-serif}
header,main,footer{max-width:62rem;margin:0 auto;padding:0 1rem}
header{padding-top:2.5rem}
footer{padding-bottom:3rem;color:var(--quiet);font-size:.875rem}
h1,h2,h3{line-height:1.25;text-wrap:balance;overflow-wrap:anywhere}
h1{font-size:1rem;font-weight:600;color:var(--quiet);margin:0}
h2{font-size:1.375rem;margin:3rem 0 .75rem;padding-top:1rem;border-top:1px solid var(--line)}
h3{font-size:1.0625rem;margin:0}
p{margin:.5rem 0;max-width:46rem;overflow-wrap:anywhere}
small,.quiet{color:var(--quiet);font-size:.875rem}
a{color:var(--link)}
:focus-visible{outline:3px solid var(--link);outline-offset:2px;border-radius:2px}
.skip{position:absolute;left:-100rem}
.skip:focus{left:1rem;top:.5rem;padding:.5rem .75rem;background:var(--page);z-index:1}
.unseen{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%);white-space:nowrap}
.verdict{margin:.75rem 0 1.25rem}
.verdict p{font-size:clamp(1.2rem,.95rem + 1.2vw,1.6rem);line-height:1.35;font-weight:600;max-width:none;
margin:0 0 .75rem;text-wrap:pretty}
.verdict.many p{font-size:1.0625rem;font-weight:500;margin-bottom:.4rem}
.facts{display:flex;flex-wrap:wrap;gap:.1rem 1.25rem;margin:0;padding:0;list-style:none;color:var(--quiet);
font-size:.875rem}
.facts li{overflow-wrap:anywhere}
nav ul{display:flex;flex-wrap:wrap;gap:.25rem 1.1rem;margin:1.25rem 0 0;padding:0;list-style:none;font-size:.9375rem}
nav a{display:inline-block;padding:.2rem 0}
.notes{border-left:4px solid var(--line);background:var(--card);padding:.9rem 1.1rem;margin:1.5rem 0}
.notes.warn{border-color:var(--warn);background:var(--warned)}
.notes h2{border:0;margin:0;padding:0;font-size:1.0625rem}
.notes.warn h2{color:var(--warn)}
.notes ul{margin:.4rem 0 0;padding-left:1.2rem}
.notes li{max-width:46rem;margin:.2rem 0;overflow-wrap:anywhere}
.scroll{position:relative;overflow-x:auto;margin:.75rem 0;scrollbar-width:thin}
table{border-collapse:collapse;font-size:.9375rem;line-height:1.35}
caption{text-align:left;color:var(--quiet);font-size:.875rem;padding:0 0 .4rem}
caption span{display:inline-block;position:sticky;left:0;max-width:min(46rem,100vw - 2rem)}
th,td{padding:.4rem .7rem;text-align:right;vertical-align:top;border-bottom:1px solid var(--line);
font-variant-numeric:tabular-nums}
td{white-space:nowrap}
th{font-weight:600}
tbody th{font-weight:400}
th:first-child{text-align:left;padding-left:0}
thead th,thead td{vertical-align:bottom;border-bottom:2px solid var(--line)}
th small,td small{display:block;font-weight:400;font-size:.9em}
.words td{text-align:left;white-space:normal;max-width:28rem}
.words td:last-child:not(:nth-child(2)){min-width:8rem}
.words th{text-align:left}
.even{border-collapse:separate;border-spacing:0;table-layout:fixed;
width:min(100%,14rem + var(--n)*16rem);min-width:calc(8rem + var(--n)*7.75rem)}
.even thead th:first-child{width:max(8rem,20%)}
.even th{overflow-wrap:anywhere}
.even tr:not(.group)>th:first-child{position:sticky;left:0;background:var(--page);z-index:1}
.group th{font-size:.8125rem;font-weight:600;color:var(--quiet);padding-top:1.1rem;
border-bottom:2px solid var(--line)}
.best{font-weight:700}
.star{display:inline-block;width:1em;margin-right:-1em;text-align:right;font-size:.8em}
.share{display:block;padding-bottom:.4rem;
background:linear-gradient(var(--bar),var(--bar)) left bottom/var(--v) 4px no-repeat}
figure{margin:0;min-width:0}
figcaption p{margin:.2rem 0 .5rem;color:var(--quiet);font-size:.875rem;max-width:none}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,25rem),1fr));gap:2.25rem 2.5rem;
align-items:start;margin-top:1.25rem}
.legend{display:flex;flex-wrap:wrap;gap:.1rem 1.1rem;margin:.4rem 0 0;padding:0;list-style:none;font-size:.875rem}
.legend li{display:flex;align-items:center;gap:.4rem;overflow-wrap:anywhere}
details{margin:.5rem 0 0;font-size:.9375rem}
summary{cursor:pointer;color:var(--link);padding:.2rem 0;width:fit-content}
details table{font-size:.875rem}
details th,details td{padding:.35rem .45rem}
dl{margin:.75rem 0;max-width:50rem}
dt{font-weight:600}
dd{margin:0 0 .6rem}
pre{background:var(--card);border:1px solid var(--line);border-radius:4px;padding:.8rem 1rem;margin:.75rem 0;
overflow-x:auto;white-space:pre;user-select:all;
font:.9375rem/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace}
code{font:.9em ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;overflow-wrap:anywhere}
"""

_CHARTS = """
figure>svg{display:block;width:100%;max-width:34rem;height:auto;overflow:visible}
svg text{font:12px system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue","Noto Sans",Arial,sans-serif;
fill:var(--ink);font-variant-numeric:tabular-nums}
svg .tick,svg .axis{fill:var(--quiet)}
svg .tick{font-size:11.5px}
svg .small{font-size:9px}
svg .label{paint-order:stroke;stroke:var(--page);stroke-width:3px;stroke-linejoin:round}
.grid{stroke:var(--line);stroke-width:1;fill:none}
.frame{stroke:var(--line);fill:none}
.front{stroke:var(--quiet);stroke-width:1.2;stroke-dasharray:3 3;fill:none}
.mark{fill:var(--c);stroke:var(--page);stroke-width:1.2;paint-order:stroke}
.fill{fill:var(--c)}
.curve{stroke:var(--c);stroke-width:1.8;fill:none;stroke-linejoin:round}
.whisker{stroke:var(--c);stroke-width:1.3;fill:none}
.faint{opacity:.6;stroke-width:1}
.box{fill:var(--page);stroke:var(--c);stroke-width:1.6}
.median{stroke:var(--c);stroke-width:3;fill:none}
.bar{fill:var(--s0)}
.hatch{stroke:var(--page);stroke-width:1.8;fill:none}
.dots{stroke:var(--page);stroke-width:3;stroke-linecap:round;stroke-dasharray:0 6;fill:none}
.key{width:2rem;height:1rem;flex:none;overflow:visible}
.key.alone{width:1rem}
th .key{vertical-align:-.15rem;margin-right:.2rem}
svg .on1{fill:var(--on1)}svg .on2{fill:var(--on2)}svg .on3{fill:var(--on3)}
svg .on4{fill:var(--on4)}svg .on5{fill:var(--on5)}svg .on6{fill:var(--on6)}
"""

_PHONE = """
@media (max-width:40rem){
header{padding-top:1.25rem}
th,td{padding:.35rem .5rem}
.even{min-width:calc(6.5rem + var(--n)*7.75rem)}
.even tr:not(.group)>th:first-child{box-shadow:1px 0 var(--line)}
.even thead th:first-child{width:6.5rem}
svg text{font-size:13px}
svg .tick{font-size:12.5px}
}
"""

_PRINT = """
@media print{
@page{margin:15mm}
body{font-size:10pt}
header,main,footer{max-width:none;padding:0}
header{padding-top:0}
nav,.skip,figure details{display:none}
h2{margin-top:1.5rem;break-after:avoid}
h3{break-after:avoid}
figure,.notes,tr,pre,dl div{break-inside:avoid}
.scroll{overflow:visible}
table{font-size:8.5pt}
small,caption,.quiet,.facts,figcaption p,.legend,.group th{font-size:8.5pt}
td small,th small{font-size:7.5pt}
.verdict p{font-size:15pt}
.verdict.many p{font-size:11pt}
h2{font-size:13pt}
h3,.notes h2{font-size:11pt}
th,td{padding:.25rem .4rem}
.charts{grid-template-columns:1fr 1fr;gap:1.5rem}
.even{min-width:0}
.even tr:not(.group)>th:first-child{position:static;box-shadow:none}
.even th,.even td{padding-right:1rem}
.share,.notes,pre{print-color-adjust:exact;-webkit-print-color-adjust:exact}
pre{white-space:pre-wrap;overflow-wrap:anywhere}
.scroll{break-inside:avoid}
.long{break-inside:auto}
caption{break-after:avoid}
}
"""
