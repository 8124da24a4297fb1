// A list for a user, or for a history that is built by clicking items.
"use strict";

const LIST = 10;
const LONGEST = 1000;

function quoted(id) {
  return /^[\w.:-]+$/.test(id) ? id : `'${id.replaceAll("'", "'\\''")}'`;
}

/* What makes the same list in a terminal. */
function command({ user, history }) {
  const whom = user ? `--user ${quoted(user)}` : `--history ${history.length ? history.map(quoted).join(" ") : "ITEM"}`;
  return `qarm recommend --run RUN ${whom} -k ${LIST}`;
}

function sameList(one, other) {
  return one.user === other.user && JSON.stringify(one.history) === JSON.stringify(other.history);
}

function openList(changes) {
  location.hash = address(changes);
}

function addButton(item) {
  const made = element("button", { type: "button", id: "add" }, "Add to the history");
  made.addEventListener("click", () => {
    const { history } = asked();
    openList({ user: "", history: [...history, item].slice(-LONGEST) });
  });
  return element("p", {}, made);
}

// ---- what is shown -------------------------------------------------------------------------------

async function showList({ user, history }, current) {
  const wanted = user !== "" || history.length > 0;
  const [found, past] = await Promise.all([
    wanted && about.recommends ? source.recommend({ user, history, k: LIST }) : null,
    source.cards(history),
  ]);
  const cards = found ? await source.cards(found.items.map((one) => one.item_id)) : [];
  if (current !== turn) return;
  if (document.activeElement !== byId("user")) byId("user").value = user;
  byId("history").replaceChildren(...past.map((one, place) => pastItem(one, history, place)));
  byId("past").hidden = history.length === 0;
  byId("recommended").replaceChildren(...cards.map((one, place) => listed(one, found.items[place])));
  byId("recommend-note").textContent = found ? heading(user, found) : "";
  byId("recommend-command").textContent = about.recommends ? "" : command({ user, history });
  byId("recommend-elsewhere").hidden = about.recommends;
  if (found) byId("status").textContent = `${count(found.items.length, "item", "items")} recommended`;
}

function heading(user, found) {
  const whom = user ? `For user ${user}` : "After this history";
  return [whom, ...found.notes].join("; ");
}

function listed(one, { why, because }) {
  const made = card(one);
  made.append(element("span", { class: "soft why" }, because === null ? why : `${why}, after ${because}`));
  return made;
}

function pastItem(one, history, place) {
  const made = card(one);
  const remove = element("button", { type: "button", "aria-label": `Remove ${one.title || one.item} from the history` }, "Remove");
  remove.addEventListener("click", () => {
    focusNext = "recommend-title";
    openList({ history: history.filter((_, other) => other !== place) });
  });
  made.append(remove);
  return made;
}

function listenToList() {
  byId("user-form").addEventListener("submit", (event) => {
    event.preventDefault();
    openList({ user: byId("user").value.trim(), history: [] });
  });
  byId("clear").addEventListener("click", () => {
    focusNext = "recommend-title";
    openList({ user: "", history: [] });
  });
}
