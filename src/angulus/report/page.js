"use strict";
(() => {
  const charts = JSON.parse(document.getElementById("charts").textContent);
  const plots = [...document.querySelectorAll(".plot")];
  const touch = matchMedia("(pointer: coarse)").matches;
  const config = { displaylogo: false, responsive: true, doubleClick: "reset", displayModeBar: touch ? false : "hover" };

  // colours come from the style sheet, which knows light from dark
  function template() {
    const text = getComputedStyle(document.body).color;
    const line = getComputedStyle(document.querySelector("nav")).borderBottomColor;
    const axis = { gridcolor: line, zerolinecolor: line, linecolor: line, tickfont: { size: 11 }, automargin: true };
    const solid = { ...axis, showbackground: false };
    const clear = "rgba(0,0,0,0)";
    return {
      layout: {
        font: { color: text, size: 12, family: "system-ui, sans-serif" },
        paper_bgcolor: clear, plot_bgcolor: clear,
        margin: { l: 50, r: 10, t: 10, b: 46 },
        xaxis: axis, yaxis: axis, scene: { xaxis: solid, yaxis: solid, zaxis: solid },
        legend: { orientation: "h", yref: "container", y: 0, yanchor: "bottom", font: { size: 11 }, itemsizing: "constant" },
        modebar: { bgcolor: clear, color: line, activecolor: text },
        dragmode: touch ? false : "zoom", hovermode: "closest",
      },
    };
  }

  const is3d = (chart) => "scene" in chart.layout;
  const chartOf = (plot) => charts[Number(plot.dataset.chart)];
  const isDrawn = (plot) => plot.classList.contains("js-plotly-plot");

  // a layout of its own for each drawing: plotly writes into what it is given
  async function draw(plot) {
    const chart = chartOf(plot);
    const layout = { ...structuredClone(chart.layout), template: template() };
    if (is3d(chart)) layout.dragmode = "turntable";
    await Plotly.newPlot(plot, structuredClone(chart.traces), layout, config);
    await place(plot);
  }

  // how far the axes go: a little beyond all points but the farthest hundredth
  function farthest(columns) {
    const norms = columns.flatMap((trace) => trace[0].map((_, row) => Math.hypot(...trace.map((column) => column[row]))));
    return norms.sort((a, b) => a - b)[Math.floor(0.99 * (norms.length - 1))] * 1.08;
  }

  // features at the chosen epoch, and at length 1 if that is chosen
  async function place(plot) {
    const chart = chartOf(plot), box = plot.closest(".charts");
    const slider = box.querySelector(".epoch"), lengths = box.querySelector(".lengths");
    if (!slider && !lengths) return;
    const frame = slider && Number(slider.value) < Number(slider.max) ? chart.frames[Number(slider.value)] : undefined;
    const unit = lengths !== null && lengths.checked;
    const axes = is3d(chart) ? ["x", "y", "z"] : ["x", "y"];
    const moved = Object.fromEntries([...axes, "visible"].map((name) => [name, []]));
    chart.traces.forEach((trace, number) => {
      const outline = trace.visible === false;
      let columns = frame && !outline ? frame[number] : axes.map((axis) => trace[axis]);
      if (unit && !outline) {
        const norms = columns[0].map((_, row) => Math.hypot(...columns.map((column) => column[row])) || 1);
        columns = columns.map((column) => column.map((value, row) => value / norms[row]));
      }
      axes.forEach((axis, place) => moved[axis].push(columns[place]));
      moved.visible.push(!outline || unit);
    });
    const home = is3d(chart) ? chart.layout.scene : chart.layout;
    const far = frame && farthest(frame); // each earlier epoch has axes of its own: untrained features can be far out
    const ranges = Object.fromEntries(axes.map((axis) => [
      `${is3d(chart) ? "scene." : ""}${axis}axis.range`, unit ? [-1.15, 1.15] : far ? [-far, far] : home[`${axis}axis`].range.slice(),
    ]));
    await Plotly.update(plot, moved, ranges);
  }

  // charts are drawn as they come near; a browser has room for few in 3-D, so these go when they leave
  const watcher = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      if (isIntersecting && !isDrawn(target)) draw(target);
      else if (!isIntersecting && isDrawn(target) && is3d(chartOf(target))) {
        Plotly.purge(target);
        target.classList.remove("js-plotly-plot");
      }
    }
  }, { rootMargin: "400px" });
  plots.forEach((plot) => watcher.observe(plot));

  // a table that is wider than its place says that it scrolls
  const wide = new ResizeObserver((entries) => {
    for (const { target } of entries) {
      const region = target.closest(".scroll");
      region.previousElementSibling.hidden = region.scrollWidth <= region.clientWidth + 1;
    }
  });
  document.querySelectorAll(".scroll, .scroll > table").forEach((each) => wide.observe(each));

  for (const box of document.querySelectorAll(".charts")) {
    const own = [...box.querySelectorAll(".plot")];
    const update = () => own.filter(isDrawn).forEach(place);
    const slider = box.querySelector(".epoch"), play = box.querySelector(".play");
    box.querySelector(".lengths")?.addEventListener("change", update);
    if (!slider) continue;
    const names = JSON.parse(slider.dataset.names), output = box.querySelector("output");
    let timer = 0;
    const stop = () => { clearInterval(timer); timer = 0; play.textContent = "Play"; };
    const go = (value) => {
      slider.value = value;
      output.textContent = names[value];
      slider.setAttribute("aria-valuetext", names[value]);
      update();
    };
    slider.addEventListener("input", () => { stop(); go(Number(slider.value)); });
    play.addEventListener("click", () => {
      if (timer) return stop();
      play.textContent = "Stop";
      go(0);
      timer = setInterval(() => {
        go(Number(slider.value) + 1);
        if (slider.value === slider.max) stop();
      }, 350);
    });
  }

  const root = document.documentElement, button = document.getElementById("theme");
  let dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const show = () => {
    root.style.colorScheme = dark ? "dark" : "light";
    button.setAttribute("aria-pressed", String(dark));
    plots.filter(isDrawn).forEach((plot) => Plotly.relayout(plot, { template: template() }));
  };
  button.addEventListener("click", () => { dark = !dark; show(); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", (event) => { dark = event.matches; show(); });
  button.setAttribute("aria-pressed", String(dark));
})();
