// Where the explorer's data come from: the page itself, or the service that serves it.
"use strict";

/* Both kinds answer the same questions; cards are {item, title, picture, codes}:
   about()          {items, levels, note, recommends}
   tree(prefix)     [{prefix, items, codes, examples}], the prefix itself first; none if nothing has it
   search(query)    cards
   item(id)         a card with text, suffix, sound, raw and aligned (cards, or null), or null
   under(prefix, n) {count, cards}: items whose codes begin with the prefix
   cards(ids)       cards, in that order
   recommend({user, history, k})  {items: [{item_id, why, because}], notes}, where `recommends` is true */

function embeddedSource(data) {
  const items = new Map(data.items.items.map((item) => [item.item, item]));
  const listed = data.items.items.filter((item) => item.raw !== null);
  const sought = listed.map((item) => [item, plain(`${item.item}\n${item.title || ""}`)]);
  const card = (id) => items.get(id) || { item: id, title: null, picture: null, codes: null };
  return {
    async about() {
      const { counts, limits } = data.items;
      const sound = counts.sounds ? ` and ${number(counts.sounds)} sounds (at most ${megabytes(limits.sound_bytes)})` : "";
      return {
        items: data.tree.items,
        levels: data.tree.levels,
        recommends: false,
        note:
          `This page carries everything in itself: ${number(counts.listed)} of ${number(counts.coded)} items (at most ` +
          `${number(limits.items)}), ${number(counts.pictures)} small pictures (at most ${megabytes(limits.picture_bytes)})${sound}. ` +
          `The tree counts all items and shows its ${number(data.tree.limits.nodes)} largest prefixes at most.`,
      };
    },
    async tree(prefix) {
      return data.tree.nodes.filter((node) => begins(node.prefix, prefix));
    },
    async search(query) {
      const found = sought.filter(([, text]) => text.includes(plain(query)));
      return found.slice(0, 24).map(([item]) => item);
    },
    async item(id) {
      const found = items.get(id);
      if (!found) return null;
      return { ...found, raw: found.raw && found.raw.map(card), aligned: found.aligned && found.aligned.map(card) };
    },
    async under(prefix, most) {
      const node = data.tree.nodes.find((one) => one.prefix === prefix);
      const codes = prefix === "" ? [] : prefix.split("-").map(Number);
      const own = data.items.items.filter((item) => codes.every((code, level) => item.codes[level] === code));
      return { count: node ? node.items : own.length, cards: own.slice(0, most) };
    },
    async cards(ids) {
      return ids.map(card);
    },
  };
}

function begins(prefix, start) {
  return start === "" || prefix === start || prefix.startsWith(`${start}-`);
}

function plain(text) {
  return text.normalize("NFKD").toLowerCase().trim();
}

function number(value) {
  return value.toLocaleString("en");
}

function megabytes(bytes) {
  return `${number(bytes / 2 ** 20)} MB`;
}
