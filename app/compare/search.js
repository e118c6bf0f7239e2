// The search field of the Compare page, and its place in the browser's history.
//
// The field belongs to the person: what is typed goes to Python with a number, and Python's text is put into the field
// only once Python has seen everything typed, as after Back or a button that removes the search.

const fields = new WeakMap()
let searching = false // whether the browser's current step is a search, which lasts until the field is entered anew

class Field {
  constructor(parent) {
    this.sent = 0
    this.root = parent.appendChild(document.createElement("label"))
    this.root.className = "gs-search"
    this.root.append("Search", (this.input = document.createElement("input")))
    Object.assign(this.input, { type: "search", autocomplete: "off" })
    this.input.addEventListener("input", event => event.isComposing || this.typed())
    this.input.addEventListener("compositionend", () => this.typed())
    this.input.addEventListener("focus", () => (searching = false))
  }

  draw({ text, seen, disabled, placeholder, pause, longest }) {
    this.pause = pause
    Object.assign(this.input, { disabled, placeholder, maxLength: longest })
    if (seen >= this.sent && !this.timer && this.input.value !== text) this.input.value = text
  }

  typed() {
    clearTimeout(this.timer)
    this.timer = setTimeout(() => this.send(), this.pause)
  }

  send() {
    this.timer = 0
    this.sent = Math.max(Date.now(), this.sent + 1)
    this.emit({ text: this.input.value, number: this.sent })
  }

  close() {
    clearTimeout(this.timer)
    this.root.remove()
  }
}

// An address without the search text and the page number, which a new text removes.
function rest(address) {
  const names = new URLSearchParams(address.searchParams)
  for (const name of ["q", "page"]) names.delete(name)
  names.sort()
  return `${address.pathname}?${names}`
}

// Streamlit makes every change of the address, and so every key, a step of the history. Changes that continue a search
// replace the step of its first key.
function step(state, title, address) {
  const here = new URL(location.href)
  const there = new URL(address ?? "", here)
  const typed = here.searchParams.get("q") !== there.searchParams.get("q")
  const turnedBack = searching && !there.searchParams.has("page")
  const removed = !there.searchParams.get("q") && !document.activeElement?.matches(".gs-search input") // by a button
  const continues = rest(here) === rest(there) && (typed || turnedBack) && !removed
  History.prototype[continues && searching ? "replaceState" : "pushState"].call(history, state, title, address)
  searching = continues
}

function left() {
  searching = false
}

export default function ({ data, parentElement, setStateValue }) {
  const field = fields.get(parentElement) ?? new Field(parentElement)
  fields.set(parentElement, field)
  field.emit = typed => setStateValue("typed", typed)
  field.draw(data)
  history.pushState = step
  addEventListener("popstate", left)
  return () => {
    if (parentElement.isConnected) return // Streamlit also cleans up draws that a newer one has overtaken
    field.close()
    fields.delete(parentElement)
    delete history.pushState
    removeEventListener("popstate", left)
  }
}
