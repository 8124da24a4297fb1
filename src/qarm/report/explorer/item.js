// An item and what stands around it; every text goes in as text, never as HTML.
"use strict";

const SHARING = 8;

function element(name, attributes, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined) made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

// ---- parts ---------------------------------------------------------------------------------------

function picture(card, side) {
  if (card.picture) {
    return element("img", { src: card.picture, alt: "", width: side, height: side, decoding: "async" });
  }
  const letters = (card.title || card.item).trim().slice(0, 2);
  return element("span", { class: "blank", "aria-hidden": "true" }, letters);
}

function codesText(codes, like) {
  if (!codes) return null;
  let same = 0;
  while (like && same < codes.length && codes[same] === like[same]) same += 1;
  const shared = codes.slice(0, same).join("-");
  const rest = codes.slice(same).join("-");
  return element("span", { class: "codes" }, element("b", {}, shared), shared && rest ? "-" : "", rest);
}

function card(one, { like = null } = {}) {
  const link = element(
    "a",
    { href: address({ item: one.item }), class: "card" },
    picture(one, 72),
    element("span", { class: "title" }, one.title || one.item),
    codesText(one.codes, like),
  );
  link.addEventListener("click", () => {
    link.href = address({ item: one.item }); // the address may have changed since
    focusNext = "item-title";
  });
  return element("li", {}, link);
}

function codeLink(prefix, text) {
  const link = element("a", { href: address({ prefix }) }, text);
  link.addEventListener("click", () => {
    link.href = address({ prefix });
    focusNext = "codes-title";
  });
  return link;
}

// ---- an item -------------------------------------------------------------------------------------

async function showItem({ item }, current) {
  const found = item ? await source.item(item) : null;
  if (current !== turn) return;
  document.title = found ? `${found.title || found.item} - qarm explorer` : "qarm explorer";
  if (!found) {
    byId("item-title").textContent = item ? `No item ${item}` : "No item chosen";
    const hint = item
      ? "Nothing here has this id."
      : "Search for one, or choose an example beside the code tree: its picture, sound, codes and neighbours appear here.";
    byId("item-body").replaceChildren(element("p", { class: "soft" }, hint));
    return;
  }
  byId("item-title").textContent = found.title || found.item;
  byId("item-body").replaceChildren(
    element(
      "div",
      { class: "facts" },
      element("div", { class: "large" }, picture(found, 144)),
      element(
        "div",
        {},
        element("p", { class: "soft" }, `Item ${found.item}`),
        addButton(found.item),
        found.text ? element("p", { class: "text" }, withoutTitle(found)) : null,
        found.sound ? element("audio", { controls: "", preload: "none", src: found.sound, "aria-label": `Sound of ${found.title || found.item}` }) : null,
      ),
    ),
    element("h3", {}, "Its codes, a path in the tree"),
    await codePath(found),
    element("h3", { id: "near-title" }, "Nearest items, before and after alignment"),
    neighbours(found),
    element("h3", {}, "Who shares its code"),
    await sharing(found),
  );
}

function withoutTitle({ title, text }) {
  return title && text.startsWith(`${title}\n`) ? text.slice(title.length + 1) : text;
}

function prefixes(codes) {
  return codes.map((_, level) => codes.slice(0, level + 1).join("-"));
}

async function codePath(found) {
  const steps = prefixes(found.codes);
  const sizes = await Promise.all(steps.map((prefix) => source.under(prefix, 0)));
  const list = element("ol", { class: "path" });
  steps.forEach((prefix, level) => {
    const link = codeLink(prefix, element("b", {}, String(found.codes[level])));
    link.append(element("span", { class: "soft" }, `level ${level + 1}`), element("span", { class: "soft" }, count(sizes[level].count, "item", "items")));
    link.setAttribute("aria-label", `Level ${level + 1}: code ${prefix}, ${count(sizes[level].count, "item", "items")}`);
    list.append(element("li", {}, link));
  });
  if (found.suffix !== null && found.suffix !== undefined) {
    list.append(element("li", {}, element("span", { class: "soft" }, `suffix ${found.suffix}`)));
  }
  return list;
}

function neighbours(found) {
  const columns = [
    ["Before", found.raw],
    ["After", found.aligned],
  ].map(([name, cards]) => {
    const title = element("h4", { id: `near-${name}` }, name);
    if (!cards || cards.length === 0) {
      const why = cards ? "It has no vector of this kind." : "Not on this page; the service has them.";
      return element("section", { "aria-labelledby": `near-${name}` }, title, element("p", { class: "soft" }, why));
    }
    const list = element("ol", { class: "near" }, ...cards.map((one) => card(one, { like: found.codes })));
    return element("section", { "aria-labelledby": `near-${name}` }, title, list);
  });
  return element("div", { class: "before-after" }, ...columns);
}

async function sharing(found) {
  const rows = element("div", { class: "sharing" });
  for (const prefix of prefixes(found.codes).reverse()) {
    const under = await source.under(prefix, SHARING + 1);
    const others = under.cards.filter((one) => one.item !== found.item).slice(0, SHARING);
    const level = prefix.split("-").length;
    const name = level === found.codes.length ? "Full code " : "Prefix ";
    const size = under.count > 1 ? `: ${count(under.count - 1, "other item", "other items")}` : ": no other item";
    rows.append(element("p", {}, name, codeLink(prefix, prefix), size));
    if (others.length) rows.append(element("ul", { class: "cards" }, ...others.map((one) => card(one, { like: found.codes }))));
    if (others.length >= SHARING) break;
  }
  return rows;
}
