// The code tree as rings of segments: drawing, and walking over them with the keys.
"use strict";

const [INNER, OUTER, RINGS] = [66, 288, 3];
const FULL = 2 * Math.PI;
const THINNEST = 0.0012; // radians; thinner ones are drawn as one
const SVG = "http://www.w3.org/2000/svg";

function svgElement(name, attributes) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

/* Places segments: for each node below `prefix` its ring and angles, and what is left over as `rest`. */
function layOut(nodes, prefix) {
  const children = new Map();
  for (const node of nodes) {
    if (node.prefix === prefix) continue;
    const parent = node.prefix.includes("-") ? node.prefix.slice(0, node.prefix.lastIndexOf("-")) : "";
    if (!children.has(parent)) children.set(parent, []);
    children.get(parent).push(node);
  }
  const segments = [];
  const place = (node, from, to, ring, hue) => {
    const own = children.get(node.prefix) || [];
    if (ring > RINGS || node.codes === 0) return;
    let angle = from;
    let rest = node.items;
    const siblings = [];
    own.forEach((child, index) => {
      const width = ((to - from) * child.items) / node.items;
      if (width < THINNEST) return;
      const shade = ring === 1 ? (360 * index) / own.length : hue;
      const segment = { node: child, ring, from: angle, to: angle + width, hue: shade, parent: node.prefix, siblings };
      siblings.push(segment);
      segments.push(segment);
      place(child, angle, angle + width, ring + 1, shade);
      angle += width;
      rest -= child.items;
    });
    if (rest > 0) segments.push({ rest, ring, from: angle, to, hue, siblings: [] });
  };
  const top = nodes.find((node) => node.prefix === prefix);
  if (top) place(top, 0, FULL, 1, 0);
  return segments;
}

/* Where ring `ring` begins and ends, if there are `rings` of them. */
function radii(ring, rings) {
  const width = (OUTER - INNER) / rings;
  return [INNER + width * (ring - 1), INNER + width * ring];
}

function arc({ ring, from, to }, rings) {
  const [inner, outer] = radii(ring, rings).map((radius, side) => radius + 1 - 2 * side);
  const end = Math.min(to, from + FULL - 1e-4);
  const large = end - from > Math.PI ? 1 : 0;
  const at = (radius, angle) => `${(radius * Math.sin(angle)).toFixed(2)} ${(-radius * Math.cos(angle)).toFixed(2)}`;
  return (
    `M${at(outer, from)}A${outer} ${outer} 0 ${large} 1 ${at(outer, end)}` +
    `L${at(inner, end)}A${inner} ${inner} 0 ${large} 0 ${at(inner, from)}Z`
  );
}

function count(value, one, many) {
  return `${number(value)} ${value === 1 ? one : many}`;
}

function segmentText(node) {
  const below = node.codes ? `, ${count(node.codes, "code", "codes")} below` : "";
  return `Code ${codeText(node)}: ${count(node.items, "item", "items")}${below}`;
}

function codeText(node) {
  return node.name ? `${node.prefix} (${node.name})` : node.prefix;
}

/* Draws into `svg`; `open` gets a prefix to go to, `tell` the segment under the pointer or the keys. */
function drawSunburst(svg, nodes, { prefix, path, open, tell }) {
  const segments = layOut(nodes, prefix);
  const tree = svgElement("g", { role: "tree", "aria-label": "Codes" });
  const labels = svgElement("g", { class: "labels", "aria-hidden": "true" });
  const drawn = new Map();
  const rings = Math.max(1, ...segments.map((segment) => segment.ring));
  for (const segment of segments) {
    const shape = svgElement("path", { d: arc(segment, rings) });
    shape.style.setProperty("--hue", segment.hue.toFixed(1));
    if (!segment.node) {
      shape.setAttribute("class", `ring ring-${segment.ring} rest`);
      shape.setAttribute("aria-hidden", "true");
      tree.append(shape);
      continue;
    }
    const thin = segment.to - segment.from < 0.02 ? " thin" : "";
    const onPath = path !== null && begins(path, segment.node.prefix) ? " on-path" : "";
    shape.setAttribute("class", `ring ring-${segment.ring}${thin}${onPath}`);
    shape.setAttribute("role", "treeitem");
    shape.setAttribute("tabindex", "-1");
    shape.setAttribute("aria-label", segmentText(segment.node));
    shape.setAttribute("aria-level", segment.ring);
    shape.setAttribute("aria-posinset", segment.siblings.indexOf(segment) + 1);
    shape.setAttribute("aria-setsize", segment.siblings.length);
    shape.setAttribute("aria-selected", onPath ? "true" : "false");
    shape.dataset.prefix = segment.node.prefix;
    shape.addEventListener("click", () => open(segment.node.prefix));
    shape.addEventListener("pointerenter", () => tell(segment.node));
    shape.addEventListener("focus", () => {
      rove(shape);
      tell(segment.node);
    });
    drawn.set(segment.node.prefix, { segment, shape });
    tree.append(shape);
    label(labels, segment, rings);
  }
  const rove = (shape) => {
    for (const other of tree.querySelectorAll('[tabindex="0"]')) other.setAttribute("tabindex", "-1");
    shape.setAttribute("tabindex", "0");
  };
  for (const strong of tree.querySelectorAll(".on-path")) tree.append(strong); // over its neighbours' edges
  const start = [...drawn.values()].find(({ segment }) => segment.ring === 1);
  if (start) rove(start.shape);
  tree.addEventListener("keydown", (event) => walk(event, drawn, { prefix, open }));
  tree.addEventListener("pointerleave", () => tell(null));
  svg.replaceChildren(tree, labels, middle(nodes, prefix, open));
}

function label(labels, { node, ring, from, to }, rings) {
  const [inner, outer] = radii(ring, rings);
  const radius = (inner + outer) / 2;
  const text = node.prefix.slice(node.prefix.lastIndexOf("-") + 1);
  if ((to - from) * radius < 6 + 9 * text.length) return;
  const middleAngle = (from + to) / 2;
  const made = svgElement("text", {
    x: (radius * Math.sin(middleAngle)).toFixed(1),
    y: (-radius * Math.cos(middleAngle) + 5).toFixed(1),
  });
  made.textContent = text;
  labels.append(made);
}

function middle(nodes, prefix, open) {
  const top = nodes.find((node) => node.prefix === prefix);
  const up = prefix.includes("-") ? prefix.slice(0, prefix.lastIndexOf("-")) : "";
  const group = svgElement("g", { class: "middle" });
  group.append(svgElement("circle", { r: INNER - 6 }));
  const lines = [prefix === "" ? "All codes" : prefix, top ? count(top.items, "item", "items") : "no item"];
  if (prefix !== "") lines.push("↑ up");
  lines.forEach((line, index) => {
    const made = svgElement("text", { y: 6 + (index - (lines.length - 1) / 2) * 22, class: index ? "small" : "strong" });
    made.textContent = line;
    group.append(made);
  });
  if (prefix === "") return group;
  group.setAttribute("role", "button");
  group.setAttribute("tabindex", "0");
  group.setAttribute("aria-label", up === "" ? "Up to all codes" : `Up to code ${up}`);
  group.addEventListener("click", () => open(up));
  group.addEventListener("keydown", (event) => {
    if (!["Enter", " ", "Backspace", "ArrowUp"].includes(event.key)) return;
    event.preventDefault();
    open(up, { keys: true });
  });
  return group;
}

function walk(event, drawn, { prefix, open }) {
  const here = drawn.get(event.target.dataset.prefix);
  if (!here) return;
  const { siblings, node, parent } = here.segment;
  const place = siblings.indexOf(here.segment);
  const first = [...drawn.values()].find(({ segment }) => segment.parent === node.prefix);
  const steps = {
    ArrowRight: () => siblings[(place + 1) % siblings.length].node.prefix,
    ArrowLeft: () => siblings[(place + siblings.length - 1) % siblings.length].node.prefix,
    Home: () => siblings[0].node.prefix,
    End: () => siblings[siblings.length - 1].node.prefix,
    ArrowDown: () => (first ? first.segment.node.prefix : node.prefix),
    ArrowUp: () => (drawn.has(parent) ? parent : node.prefix),
  };
  if (event.key in steps) {
    drawn.get(steps[event.key]()).shape.focus();
  } else if (event.key === "Enter" || event.key === " ") {
    open(node.prefix, { keys: true });
  } else if (event.key === "Backspace") {
    if (prefix !== "") open(prefix.includes("-") ? prefix.slice(0, prefix.lastIndexOf("-")) : "", { keys: true });
  } else {
    return;
  }
  event.preventDefault();
}
