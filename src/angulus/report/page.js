"use strict";
(() => {
  const { charts, sheets } = JSON.parse(document.getElementById("charts").textContent);
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
        showlegend: false, // the page has its own
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
    if (chart.samples) {
      plot.on("plotly_hover", (event) => showSample(plot, event.points[0]));
      plot.addEventListener("touchend", () => setTimeout(() => { // plotly takes only the first touch for a hover
        const area = plot.querySelector(".nsewdrag");
        if (area) Plotly.Fx.hover(plot, { clientX: at.clientX, clientY: at.clientY, target: area }, "xy");
      }, 50), true);
      plot.on("plotly_unhover", () => { peek.hidden ||= !byFinger; }); // a finger leaves at once
    }
    await place(plot);
  }

  // what a point stands for: its image, id, classes, norm and angle
  const peek = document.getElementById("peek"), picture = peek.querySelector(".picture"), said = peek.querySelector(".said");
  let at = { clientX: 0, clientY: 0 }, byFinger = false;
  const follow = (event) => { at = event; byFinger = event.pointerType === "touch"; };
  addEventListener("pointermove", follow, true);
  addEventListener("pointerdown", (event) => { follow(event); peek.hidden = true; }, true);
  function showSample(plot, point) {
    const { samples } = chartOf(plot), row = point?.customdata;
    if (row === undefined || row === null) return;
    const wrong = samples.labels[row] !== samples.predictions[row];
    const earlier = frameOf(plot) !== undefined;
    const lines = [
      samples.ids[row],
      `class ${samples.classes[samples.labels[row]]}`,
      `${earlier ? "at the end " : ""}predicted ${samples.classes[samples.predictions[row]]}${wrong ? " (wrong)" : ""}`,
      `${earlier ? "at the end " : ""}norm ${samples.norms[row]}, ${samples.degrees[row]}° to its ${samples.angle}`,
    ];
    said.replaceChildren(...lines.map((line, number) => {
      const box = document.createElement("div");
      box.textContent = line;
      if (number === 2 && wrong) box.className = "wrong";
      return box;
    }));
    const sheet = sheets[samples.sheet];
    picture.hidden = !sheet;
    if (sheet) {
      const side = picture.clientWidth || 72;
      picture.classList.toggle("small", sheet.side <= 32);
      picture.style.backgroundImage = `url(${sheet.source})`;
      picture.style.backgroundSize = `${sheet.columns * side}px auto`;
      picture.style.backgroundPosition = `${-(row % sheet.columns) * side}px ${-Math.floor(row / sheet.columns) * side}px`;
    }
    peek.hidden = false;
    const left = Math.min(at.clientX + 14, document.documentElement.clientWidth - peek.offsetWidth - 8);
    const above = at.clientY - peek.offsetHeight - 14; // a finger would hide what is below it
    peek.style.left = `${Math.max(8, left) + scrollX}px`;
    peek.style.top = `${(above > 8 ? above : at.clientY + 20) + scrollY}px`;
  }

  // how far the axes go: a little beyond all points, but no farther than three times what 95 % of them stay below
  function farthest(columns) {
    const norms = columns.flatMap((trace) => trace[0].map((_, row) => Math.hypot(...trace.map((column) => column[row]))));
    norms.sort((a, b) => a - b);
    return Math.min(norms.at(-1), 3 * norms[Math.floor(0.95 * (norms.length - 1))]) * 1.08 || 1;
  }

  // the epoch that the slider shows; undefined for the end of training
  function frameOf(plot) {
    const slider = plot.closest(".charts").querySelector(".epoch");
    return slider && Number(slider.value) < Number(slider.max) ? chartOf(plot).frames[Number(slider.value)] : undefined;
  }

  // what the legends switch off: runs on all charts, other groups on the charts next to their legend
  const off = (box) => new Set([...document.querySelectorAll(".page-legend .entry"), ...box.querySelectorAll(".entry")]
    .filter((entry) => entry.getAttribute("aria-pressed") === "false").map((entry) => entry.dataset.group));

  // features at the chosen epoch, and at length 1 if that is chosen, of the groups that are switched on
  async function place(plot) {
    const chart = chartOf(plot), box = plot.closest(".charts"), hidden = off(box);
    const slider = box.querySelector(".epoch"), lengths = box.querySelector(".lengths");
    const isOn = (trace) => !hidden.has(trace.meta);
    if (!slider && !lengths) {
      await Plotly.restyle(plot, { visible: chart.traces.map((trace) => isOn(trace) && trace.visible !== false) });
      return;
    }
    const frame = frameOf(plot);
    const unit = lengths !== null && lengths.checked;
    const axes = is3d(chart) ? ["x", "y", "z"] : ["x", "y"];
    const moved = Object.fromEntries([...axes, "visible", "customdata"].map((name) => [name, []]));
    chart.traces.forEach((trace, number) => {
      const outline = trace.visible === false;
      let columns = frame && !outline ? frame[number] : axes.map((axis) => trace[axis]);
      if (unit && !outline) {
        const norms = columns[0].map((_, row) => Math.hypot(...columns.map((column) => column[row])) || 1);
        columns = columns.map((column) => column.map((value, row) => value / norms[row]));
      }
      axes.forEach((axis, place) => moved[axis].push(columns[place]));
      moved.visible.push(isOn(trace) && (!outline || unit));
      moved.customdata.push(frame && trace.customdata ? chart.frame_samples[number] : trace.customdata);
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

  document.querySelectorAll(".entry").forEach((entry) => entry.addEventListener("click", () => {
    const on = entry.getAttribute("aria-pressed") === "false";
    entry.setAttribute("aria-pressed", String(on));
    const all = entry.closest(".page-legend") !== null;
    if (all) {
      document.querySelectorAll("figure[data-group]").forEach((figure) => {
        if (figure.dataset.group === entry.dataset.group) figure.hidden = !on;
      });
    }
    plots.filter((plot) => isDrawn(plot) && (all || entry.closest(".charts").contains(plot))).forEach(place);
  }));

  const root = document.documentElement, button = document.getElementById("theme");
  let dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const name = () => { button.textContent = dark ? "Light" : "Dark"; };  // where a click leads
  const show = () => {
    root.style.colorScheme = dark ? "dark" : "light";
    name();
    plots.filter(isDrawn).forEach((plot) => Plotly.relayout(plot, { template: template() }));
  };
  button.addEventListener("click", () => { dark = !dark; show(); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", (event) => { dark = event.matches; show(); });
  name();
})();
