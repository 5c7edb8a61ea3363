// Draws a Plotly figure into one DOM node and changes it in place: no flicker, and zoom stays.
// Streamlit runs the default export again whenever data or theme change.

const loadPlotly = (src) => (window.__spikewatchPlotly ??= new Promise((resolve, reject) => {
  const script = document.createElement("script");
  script.src = new URL(src, document.baseURI).href;
  script.onload = () => resolve(window.Plotly);
  script.onerror = () => reject(new Error(`could not load ${script.src}`));
  document.head.appendChild(script);
}));

const NARROW_PX = 460;
const PHONE_PX = 400;
const drawn = new WeakMap();

// Colours of the theme are written as var(--st-…) in the figure.
const themed = (text, token) => text.replace(/var\((--st-[a-z0-9-]+)\)/g, (_, name) => token(name));

const withTheme = (layout, token) => {
  const axis = {
    automargin: true, zeroline: false, showline: false,
    gridcolor: token("--st-border-color"), linecolor: token("--st-border-color"),
    tickcolor: token("--st-border-color"), fixedrange: false,
  };
  const out = {
    ...layout,
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: token("--st-text-color"), family: token("--st-font"), size: 12, ...layout.font },
    hoverlabel: {
      bgcolor: token("--st-secondary-background-color"), bordercolor: token("--st-border-color"),
      align: "left", font: { color: token("--st-text-color"), family: token("--st-font") },
    },
    modebar: {
      bgcolor: "rgba(0,0,0,0)", color: token("--st-gray-color"),
      activecolor: token("--st-text-color"),
    },
  };
  for (const name of new Set(["xaxis", "yaxis", ...Object.keys(layout)])) {
    if (/^[xy]axis\d*$/.test(name)) out[name] = { ...axis, ...layout[name] };
  }
  return out;
};

// On a phone long names of layers keep their end, those of rules their beginning, and the colour bar
// goes above the picture.
const narrowed = (figure, width_px) => {
  const y = figure.layout.yaxis;
  if (y?.ticktext) {
    const cut = (line) => (line.length > 15 ? "…" + line.replace("…", "").slice(-14) : line);
    y.ticktext = y.ticktext.map((t) => {
      const [, rule, layer] = /^<b>(.*)<\/b>(?:<br>(.*))?$/.exec(t) ?? [];
      if (rule === undefined) return cut(t);
      const n = width_px < PHONE_PX ? 16 : 22;
      const short = rule.length > n ? `${rule.slice(0, n - 1)}…` : rule;
      return `<b>${short}</b>` + (layer ? `<br>${cut(layer)}` : "");
    });
  }
  for (const trace of figure.data) {
    if (trace.colorbar) {
      trace.colorbar = {
        ...trace.colorbar, orientation: "h", y: 1.02, yanchor: "bottom", x: 0.5, len: 1, xpad: 0,
      };
    }
  }
  return figure;
};

const draw = async (root, { src, figure, alt }) => {
  const css = getComputedStyle(root);
  const token = (name) => css.getPropertyValue(name).trim();
  const text = themed(figure, token);
  const narrow = root.clientWidth > 0 && root.clientWidth < NARROW_PX;
  const state = drawn.get(root) ?? {};
  const look = `${narrow}|${token("--st-text-color")}|${text}`;
  if (state.look === look) return;
  drawn.set(root, { ...state, look });
  const Plotly = await loadPlotly(src);
  // While the library was loading, a newer figure may have come, or the page may have gone.
  if (!root.isConnected || drawn.get(root)?.look !== look) return;
  root.setAttribute("role", "img");
  root.setAttribute("aria-label", alt);
  const parsed = JSON.parse(text);
  const { data, layout } = narrow ? narrowed(parsed, root.clientWidth) : parsed;
  await Plotly.react(root, data, withTheme(layout, token), {
    responsive: true, displaylogo: false, doubleClick: "reset",
    modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"],
  });
  root.dataset.drawn = String(Number(root.dataset.drawn ?? 0) + 1);
};

export default function ({ data, parentElement, setTriggerValue }) {
  const root = parentElement.querySelector(".spikewatch-plot");
  const redraw = () => draw(root, root.spikewatch.data).catch((error) => {
    root.textContent = `This chart cannot be drawn: ${error.message}. ` +
      "Start the app with `spikewatch show`, and reload the page.";
  });
  const isNew = !root.spikewatch;
  root.spikewatch = { ...root.spikewatch, data, setTriggerValue };
  redraw().then(() => {
    if (!isNew || !root.on) return;
    root.on("plotly_click", ({ points: [point] }) =>
      root.spikewatch.setTriggerValue("clicked", { x: point.x, y: point.y }));
    const observer = new ResizeObserver(() => redraw());
    observer.observe(root);
    root.spikewatch.observer = observer;
  });
  return () => {
    root.spikewatch?.observer?.disconnect();
    window.Plotly?.purge(root);
    drawn.delete(root);
    delete root.spikewatch;
  };
}
