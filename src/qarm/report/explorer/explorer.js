// The page: what the address asks for is fetched and shown.
"use strict";

const byId = (id) => document.getElementById(id);
const EXAMPLES = 12;
const BRANCHES = 12;
let source = null;
let about = null;
let turn = 0;
let focusNext = null;
let shown = { prefix: null, item: undefined, query: "", user: null, history: [] };

// ---- the address ---------------------------------------------------------------------------------

function asked() {
  const given = new URLSearchParams(location.hash.slice(1));
  const code = given.get("code") || "";
  return {
    prefix: /^\d{1,9}(-\d{1,9})*$/.test(code) ? code : "",
    item: given.get("item"),
    query: given.get("query") || "",
    user: given.get("user") || "",
    history: given.getAll("past"),
  };
}

function address(changes) {
  const wanted = { ...asked(), ...changes };
  const given = new URLSearchParams();
  if (wanted.query) given.set("query", wanted.query);
  if (wanted.prefix) given.set("code", wanted.prefix);
  if (wanted.item) given.set("item", wanted.item);
  if (wanted.user) given.set("user", wanted.user);
  else for (const one of wanted.history) given.append("past", one);
  return `#${given}`;
}

function openPrefix(prefix, { keys = false } = {}) {
  focusNext = keys ? "sunburst" : "codes-title";
  location.hash = address({ prefix });
}

// ---- the code tree -------------------------------------------------------------------------------

async function showCodes({ prefix, item }, current) {
  const [nodes, chosen] = await Promise.all([source.tree(prefix), item ? source.item(item) : null]);
  if (current !== turn) return;
  const top = nodes.find((node) => node.prefix === prefix);
  const codes = prefix === "" ? [] : prefix.split("-");
  byId("codes-title").textContent = prefix === "" ? "All codes" : `Code ${top ? codeText(top) : prefix}`;
  byId("codes-size").textContent = top
    ? `${count(top.items, "item", "items")}` + (top.codes ? `, ${count(top.codes, "code", "codes")} at level ${codes.length + 1}` : "")
    : "No item has this code.";
  const crumbs = codes.map((_, level) => codes.slice(0, level + 1).join("-"));
  byId("crumbs").replaceChildren(
    ...["", ...crumbs].map((step) => {
      const text = step === "" ? "All codes" : step;
      return element("li", {}, step === prefix ? element("span", { "aria-current": "page" }, text) : codeLink(step, text));
    }),
  );
  drawSunburst(byId("sunburst"), nodes, {
    prefix,
    path: chosen ? chosen.codes.join("-") : null,
    open: openPrefix,
    tell: (node) => {
      byId("segment").textContent = node ? segmentText(node) : "\u00a0";
    },
  });
  const depth = codes.length + 1;
  const children = nodes.filter((node) => node.prefix !== prefix && node.prefix.split("-").length === depth);
  const largest = children.sort((one, other) => other.items - one.items).slice(0, BRANCHES);
  const [under, leads] = await Promise.all([
    source.under(prefix, EXAMPLES),
    source.cards(largest.map((node) => node.examples[0])),
  ]);
  const examples = await source.cards(top ? top.examples : []);
  if (current !== turn) return;
  byId("branches-title").hidden = largest.length === 0;
  byId("branches").replaceChildren(
    ...largest.map((node, place) => {
      const link = codeLink(node.prefix, "");
      link.append(picture(leads[place], 36), element("span", {}, codeText(node)), element("span", { class: "soft" }, count(node.items, "item", "items")));
      return element("li", {}, link);
    }),
  );
  const seen = new Set(examples.map((one) => one.item));
  const cards = [...examples, ...under.cards.filter((one) => !seen.has(one.item))].slice(0, EXAMPLES);
  byId("examples-title").textContent =
    cards.length < under.count ? `${number(cards.length)} of its ${count(under.count, "item", "items")}` : count(under.count, "item", "items");
  byId("examples").replaceChildren(...cards.map((one) => card(one)));
}

// ---- search --------------------------------------------------------------------------------------

async function showFound({ query }, current) {
  const cards = query ? await source.search(query) : [];
  if (current !== turn) return;
  byId("found").hidden = !query;
  byId("found-title").textContent = query ? `${count(cards.length, "item", "items")} for “${query}”` : "";
  byId("found-cards").replaceChildren(...cards.map((one) => card(one)));
  byId("status").textContent = query ? `${count(cards.length, "item", "items")} found` : "";
  if (document.activeElement !== byId("query")) byId("query").value = query;
}

// ---- the whole -----------------------------------------------------------------------------------

async function show() {
  if (!about) return; // `begin` shows it
  turn += 1;
  const current = turn;
  const wanted = asked();
  try {
    byId("problem").hidden = true;
    const work = [];
    if (wanted.query !== shown.query) work.push(showFound(wanted, current));
    if (wanted.prefix !== shown.prefix || wanted.item !== shown.item) work.push(showCodes(wanted, current));
    if (wanted.item !== shown.item) work.push(showItem(wanted, current));
    if (!sameList(wanted, shown)) work.push(showList(wanted, current));
    await Promise.all(work);
    if (current !== turn) return;
    shown = wanted;
    moveFocus();
  } catch (error) {
    shown = { prefix: null, item: undefined, query: null, user: null, history: [] };
    complain(error);
  }
  document.body.dataset.ready = location.hash; // what is shown now; tests wait for it
}

function moveFocus() {
  const wanted = focusNext;
  focusNext = null;
  if (wanted === "sunburst") {
    const svg = byId("sunburst");
    const target = svg.querySelector('[role="treeitem"][tabindex="0"]') || svg.querySelector(".middle");
    target.focus();
  } else if (wanted) {
    byId(wanted).focus({ preventScroll: true });
    const { top } = byId(wanted).getBoundingClientRect();
    if (top < 0 || top > window.innerHeight / 2) byId(wanted).scrollIntoView({ block: "start" });
  }
}

function complain(error) {
  const wantsToken = error.status === 401;
  byId("token").hidden = !wantsToken;
  if (wantsToken) return byId("secret").focus();
  byId("problem").textContent = `That did not work: ${error.message}`;
  byId("problem").hidden = false;
  return undefined;
}

function listen() {
  let waiting = null;
  const search = () => {
    clearTimeout(waiting);
    const query = byId("query").value.trim();
    if (query !== asked().query) location.hash = address({ query });
  };
  byId("query").addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(search, 200);
  });
  byId("search").addEventListener("submit", (event) => {
    event.preventDefault();
    focusNext = "found-title";
    search();
    if (asked().query === shown.query) moveFocus();
  });
  byId("token").addEventListener("submit", (event) => {
    event.preventDefault();
    source.unlock(byId("secret").value);
    byId("secret").value = "";
    byId("token").hidden = true;
    begin();
  });
  listenToList();
  window.addEventListener("hashchange", show);
}

async function begin() {
  try {
    about = await source.about();
    byId("note").textContent = about.note;
    await show();
  } catch (error) {
    complain(error);
  }
}

const data = byId("data");
source = data ? embeddedSource(JSON.parse(data.textContent)) : serviceSource();
if (data) byId("links").append(element("a", { href: "index.html" }, "Report"));
listen();
begin();
