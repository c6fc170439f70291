"use strict";
// All text goes into the page as text nodes and attributes, never as HTML, so that nothing in the data can run.
const parse = (id) => JSON.parse(document.getElementById(id).textContent);
const { mentions, demonstrations } = parse("data");
const [form, cards, more, count] = ["filters", "cards", "more", "count"].map((id) => document.getElementById(id));
let pictures = null; // parsed when the first card is drawn
const plain = (text) => text.normalize("NFD").replace(/\p{M}/gu, "").toLowerCase();
const fixed = (value) => value.toFixed(2).replace("-", "−");
const signed = (value) => (value < 0 ? "" : "+") + fixed(value);

function make(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children.filter((child) => child != null));
  return node;
}

function picture(index, alt) {
  pictures ??= parse("pictures");
  return pictures[index] ? make("img", { src: pictures[index], alt, loading: "lazy" }) : null;
}

// A name, and the id unless it is the name with underscores.
const withId = (name, id) => (name === id.replaceAll("_", " ") ? [name] : [name, " ", make("small", {}, id)]);
// An id with the name that a candidate of the mention has for it.
function named(id, mention) {
  const candidate = mention.candidates.find((each) => each[1] === id);
  return candidate ? withId(candidate[0], id) : [id];
}

function candidateList(mention) {
  const rows = mention.candidates.map(([name, id, p]) => [withId(name, id), p]);
  if (mention.nil) rows.push([["NIL"], mention.nil]);
  return make("ol", { "aria-label": "Candidates" }, ...rows.map(([name, p]) => make("li", {},
    make("i", { style: `width:${100 * p}%` }), make("span", {}, ...name), make("span", { class: "number" }, fixed(p)))));
}

function featureTable(mention) {
  const known = mention.candidates.filter((each) => each[3]);
  if (!known.length) return null;
  const size = (name) => Math.max(...known.map((each) => Math.abs(each[4]?.[name] ?? 0)));
  const names = Object.keys(known[0][3]).filter((name) => known.some((each) => each[3][name]));
  names.sort((a, b) => size(b) - size(a));
  const cell = (each, name) => make("td", {}, fixed(each[3][name] ?? 0),
    each[4]?.[name] ? make("small", {}, make("b", {}, signed(each[4][name]))) : null);
  const head = make("tr", {}, make("th", { scope: "col" }, "feature"), ...known.map((each) => make("th", { scope: "col" }, each[0])));
  const rows = names.map((name) => make("tr", {}, make("th", { scope: "row" }, name), ...known.map((each) => cell(each, name))));
  const weighed = known.some((each) => each[4]);
  return make("details", {}, make("summary", {}, weighed ? "Features, and what each adds to a candidate" : "Features"),
    make("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Features" },
      make("table", {}, make("thead", {}, head), make("tbody", {}, ...rows))));
}

function demonstrationList(mention) {
  if (!mention.demonstrations.length) return null;
  const list = make("ul", {});
  const details = make("details", {}, make("summary", {}, `${mention.demonstrations.length} demonstrations, the most similar last`), list);
  details.addEventListener("toggle", () => list.append(...mention.demonstrations.map(([index, similarity]) => {
    const [text, words, name, image] = demonstrations[index];
    return make("li", {}, image == null ? null : picture(image, `Picture of the demonstration: ${text}`),
      make("span", {}, text, " ", make("small", {}, `${words} → ${name}`,
        ...(similarity == null ? [] : [", similarity ", make("span", { class: "number" }, fixed(similarity))]))));
  })), { once: true });
  return details;
}

function card(mention) {
  const [before, words, after] = mention.text;
  const image = mention.picture == null ? null : picture(mention.picture, `Picture of: ${before}${words}${after}`);
  const verdict = mention.right == null ? ["", "not scored"] : mention.right ? ["right", "✓ right"] : ["wrong", "✗ wrong"];
  const facts = [["gold", mention.gold ? named(mention.gold, mention) : ["not annotated"]],
    ["linked to", mention.answer == null ? ["mention not found"] : [...named(mention.answer, mention),
      " ", mention.p == null ? null : make("small", { class: "number" }, `p = ${fixed(mention.p)}`)]]];
  if (mention.blind != null) facts.push(["without the image", mention.blind === mention.answer ? ["the same"] : named(mention.blind, mention)]);
  const group = mention.tail == null ? "" : mention.tail ? ", tail" : ", common";
  facts.push(["entity", [(mention.seen ? "seen in training" : "not seen in training") + group]]);
  return make("article", { "aria-label": `${words}, ${verdict[1]}` },
    image ?? make("div", { class: "none" }, mention.picture == null ? "no picture" : "the picture cannot be read"),
    make("div", {}, make("span", { class: `verdict ${verdict[0]}` }, verdict[1]),
      make("p", { class: "text" }, before, make("mark", {}, words), after),
      make("dl", {}, ...facts.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, ...value.filter((each) => each != null))])),
      mention.candidates.length ? candidateList(mention) : null, featureTable(mention), demonstrationList(mention)));
}

const effects = {
  changed: (m) => m.blind != null && m.blind !== m.answer,
  helped: (m) => effects.changed(m) && m.right === true,
  hurt: (m) => effects.changed(m) && m.blind === m.gold,
  same: (m) => m.blind != null && m.blind === m.answer,
};
const tests = {
  verdict: (m, value) => (m.right == null ? "unscored" : m.right ? "right" : "wrong") === value,
  entity: (m, value) => (value === "seen" || value === "unseen" ? m.seen === (value === "seen") : m.tail === (value === "tail")),
  image: (m, value) => effects[value](m),
  features: (m) => m.candidates.some((each) => each[3]),
  query: (m, value) => (m.words ??= plain([...m.text, m.gold, m.answer ?? "", ...m.candidates.map((each) => each[0])].join("\n"))).includes(value),
};
if (!mentions.some((m) => m.blind != null)) form.elements.image.parentNode.hidden = true;
if (!mentions.some(tests.features)) form.elements.features.parentNode.hidden = true;

let selected = [];
let drawn = 0;
function draw() {
  const next = selected.slice(drawn, drawn + 24);
  cards.append(...next.map(card));
  drawn += next.length;
  more.hidden = drawn >= selected.length;
}
function filter() {
  const wanted = [...new FormData(form)].map(([name, value]) => [tests[name], name === "query" ? plain(value.trim()) : value]);
  const active = wanted.filter(([, value]) => value);
  selected = mentions.filter((m) => active.every(([test, value]) => test(m, value)));
  const [right, wrong] = ["right", "wrong"].map((value) => selected.filter((m) => tests.verdict(m, value)).length);
  count.textContent = `${selected.length} of ${mentions.length} mentions: ${right} right, ${wrong} wrong`;
  cards.replaceChildren();
  drawn = 0;
  draw();
}
form.addEventListener("input", filter);
form.addEventListener("submit", (event) => event.preventDefault());
form.addEventListener("reset", () => setTimeout(filter));
more.addEventListener("click", () => {
  const first = drawn;
  draw();
  cards.children[first].tabIndex = -1;
  cards.children[first].focus({ preventScroll: true }); // so that the keyboard goes on behind what was there
});
new IntersectionObserver((entries) => {
  if (entries.some((entry) => entry.isIntersecting)) draw();
}, { rootMargin: "600px" }).observe(more);
filter();
