// The explorer's data from the service that serves the page; a token stays in this tab.
"use strict";

function serviceSource() {
  let known = null;
  const ask = async (path, given = {}, body = null) => {
    const address = new URL(`../v1/${path}`, location.href);
    for (const [key, value] of Object.entries(given)) {
      for (const one of [value].flat()) address.searchParams.append(key, one);
    }
    const token = sessionStorage.getItem("token");
    const headers = token ? { Authorization: `Bearer ${token}` } : {};
    const post = { method: "POST", body: JSON.stringify(body), headers: { ...headers, "Content-Type": "application/json" } };
    const answer = await fetch(address, body ? post : { headers });
    if (answer.ok) return answer.json();
    if (answer.status === 404) return null;
    const told = await answer.json().catch(() => ({}));
    throw Object.assign(new Error(told.detail || `the service answered ${answer.status}`), { status: answer.status });
  };
  const cards = async (ids) => {
    const found = [];
    for (let first = 0; first < ids.length; first += 100) {
      found.push(...(await ask("explorer/cards", { item: ids.slice(first, first + 100) })).cards);
    }
    return found;
  };
  return {
    async about() {
      known = await ask("explorer");
      return { ...known, note: `Bundle ${known.bundle.slice(0, 12)}: ${count(known.items, "item", "items")}, codes of version ${known.version}.` };
    },
    async tree(prefix) {
      return (await ask("explorer/tree", prefix === "" ? {} : { prefix })).nodes;
    },
    async search(query) {
      const found = await ask("items", { query, limit: 24 });
      return cards(found.items.map((one) => one.item_id));
    },
    async item(id) {
      const found = await ask(`items/${encodeURIComponent(id)}`, { nearest: 5 });
      if (found === null) return null;
      const [[own], raw, aligned] = await Promise.all([
        cards([id]),
        ask("explorer/before", { item: id }).then((before) => before.cards),
        cards(found.nearest.map((one) => one.item_id)),
      ]);
      const texts = Object.entries(found.facts).filter(([name, text]) => text && !["item_id", "image", "audio"].includes(name));
      const [title = null, ...rest] = texts.map(([, text]) => text);
      return { ...own, title: own.title || title, text: rest.join("\n") || null, codes: found.rq, raw, aligned };
    },
    async under(prefix, most) {
      const limit = Math.max(most, 1);
      const found = await (prefix === "" ? ask("items", { limit }) : ask(`codes/${prefix}`, { limit }));
      const ids = found.items.map((one) => one.item_id || one).slice(0, most);
      return { count: found.total, cards: await cards(ids) };
    },
    cards,
    async recommend({ user, history, k }) {
      return ask("recommend", {}, user ? { user, k } : { history, k });
    },
    unlock(token) {
      sessionStorage.setItem("token", token);
    },
  };
}
