// The reading page: shows the queried slices and sends the answers. An answer is shown as given only once the server has
// it on its disk.
import { Component, h, render } from './preact.mjs';
import htm from './htm.mjs';
import { RESET_VIEW, RETRY_MS, Viewer, WindowFilter, zoomView } from './viewer.js';

const html = htm.bind(h);
const NO_CLASS = { cannot_tell: 'cannot tell', not_usable: 'not usable' };
const AGAIN = {
  contradiction: 'asked again: you said both of this patient. Your answer now counts for all slices of the patient',
  cannot_tell: 'asked again: you could not tell these slices when they were asked first',
};
const SETTLED = {
  ask: 'they are asked again, one slice a patient',
  last: 'the class that was said last counts for all slices of the patient',
  majority: 'the class of more slices counts for all slices of the patient',
};
const PHANTOM = { true: 'Phantom: simulated images, no patients', mixed: 'Phantom and patients mixed' };
const POLL_MS = 3000;
const NO_SERVER = 'the server does not answer';
// What a key types on most keyboards: for those that type something else there (AZERTY, Cyrillic).
const LETTER = /^[a-z]$/i;
const BY_PLACE = { KeyU: 'u', Equal: '+', Minus: '-', NumpadAdd: '+', NumpadSubtract: '-' };
for (let digit = 0; digit < 5; digit += 1) BY_PLACE[`Digit${digit}`] = BY_PLACE[`Numpad${digit}`] = String(digit);
const HELD = ['ArrowLeft', 'ArrowRight', 'ArrowUp', 'ArrowDown', '+', '-']; // act again while they are held down

/** Returns an id for a message; browsers have randomUUID on secure pages only. */
const newId = () => Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, '0')).join('');

/** Shows text that changes in an element of its own for each text: one that a browser's translation has rewritten does
 * not change any more. */
const live = (text) => html`<span key=${text}>${text}</span>`;

const named = (label) => NO_CLASS[label] ?? label;

const pause = () => new Promise((resolve) => setTimeout(resolve, RETRY_MS));

const get = async (path) => {
  const response = await fetch(path);
  const reply = await response.json().catch(() => ({ error: `no answer of launch.annotate, but ${response.status}` }));
  if (reply.error) throw new Error(reply.error);
  return reply;
};

/** Returns the index in `positions` (mm, or null) nearest to that of slice `place` in `others`; by rank if unknown. */
const nearest = (positions, others, place) => {
  const target = others[place];
  if (target == null || positions.includes(null)) {
    return Math.round((place / Math.max(others.length - 1, 1)) * (positions.length - 1));
  }
  return positions.reduce((best, x, i) => (Math.abs(x - target) < Math.abs(positions[best] - target) ? i : best), 0);
};

class Page extends Component {
  state = {
    round: null, // fixed for a round: items, stacks, labels, names of the sequences
    roundState: null, // changes: answers, the one that can be undone, whether the round is closed
    item: 0, // index of the queried slice, -1 once all are answered
    shown: 0, // index of the slice on the screen in the patient's stack: the queried one or a neighbour
    view: RESET_VIEW,
    loadedSrc: '', // picture that is on the screen
    ready: false, // whether the queried slice has been on the screen
    busy: false,
    message: '',
    isAlarm: false, // whether the message says that something is not saved or not read
    epoch: 0, // counts how often the server came back, so that pictures are tried again
  };

  shownAt = 0; // time at which the queried slice was first on the screen

  sending = false;

  numExchanged = 0; // counts messages and replies, so that an older state is not taken for a newer one

  componentDidMount() {
    this.load();
    document.addEventListener('keydown', this.onKey);
    window.addEventListener('beforeunload', (event) => this.state.busy && event.preventDefault());
    setInterval(this.poll, POLL_MS);
  }

  /** Loads the newest round and replaces all state with it; tries until the server answers. */
  load = async (message = '') => {
    this.setState({ busy: true });
    for (;;) {
      try {
        const { state: roundState, ...round } = await get('round');
        const item = roundState.answers.findIndex((answer) => !answer.label);
        const shown = item < 0 ? 0 : round.items[item].place;
        this.setState(({ epoch }) => ({ round, roundState, item, shown, view: RESET_VIEW, loadedSrc: '', ready: false,
          busy: false, message, isAlarm: Boolean(message), epoch: epoch + 1 }));
        return;
      } catch (error) {
        this.setState({ message: `cannot be read (${error.message}), trying again`, isAlarm: true });
        await pause();
      }
    }
  };

  poll = async () => {
    const { numExchanged } = this;
    if (this.state.busy || !this.state.round) return;
    try {
      const roundState = await get('state');
      if (this.state.busy || numExchanged !== this.numExchanged) return;
      if (roundState.questions !== this.state.roundState.questions) await this.load();
      else {
        this.setState(({ message, isAlarm, epoch }) => {
          const isBack = message.startsWith(NO_SERVER);
          return { roundState, message: isBack ? '' : message, isAlarm: isAlarm && !isBack, epoch: epoch + isBack };
        });
      }
    } catch (error) {
      if (!this.state.busy) this.setState({ message: `${NO_SERVER} (${error.message}): is launch.annotate running? This page goes on by itself`, isAlarm: true });
    }
  };

  /** Sends one message at a time; returns the server's state, or null if it was refused. */
  send = async (path, body, saved) => {
    if (this.sending || this.state.busy) return null;
    this.sending = true;
    try {
      return await this.sendUntilAnswered(path, body, saved);
    } finally {
      this.sending = false;
    }
  };

  /** Sends until the server has the message on its disk or refuses it; always with one id, so that it counts once. */
  sendUntilAnswered = async (path, body, saved) => {
    this.numExchanged += 1;
    this.setState({ busy: true, message: 'saving …', isAlarm: false });
    const { questions } = this.state.roundState;
    const content = { id: newId(), round: this.state.roundState.round, ...body };
    const request = { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(content) };
    for (;;) {
      try {
        const response = await fetch(path, request);
        const reply = await response.json();
        this.numExchanged += 1;
        const newest = response.ok ? reply : reply.state;
        const message = response.ok ? saved : reply.error;
        if (newest && newest.questions !== questions) {
          await this.load(message); // the message came again after other questions were asked: they are shown whole
          return null;
        }
        this.setState({ busy: false, message, isAlarm: !response.ok, ...(newest && { roundState: newest }) });
        return response.ok ? reply : null;
      } catch {
        this.setState({ isAlarm: true, message: 'NOT SAVED: the server does not answer. Start launch.annotate again; this page keeps trying' });
        await pause();
      }
    }
  };

  answer = async (label) => {
    const { round, item, roundState, ready } = this.state;
    if (!ready) {
      this.setState({ message: 'not answered: the slice is not on the screen yet', isAlarm: true });
      return;
    }
    const { picture } = round.items[item];
    const milliseconds = Math.round(performance.now() - this.shownAt);
    const body = { item, picture, label, seen: roundState.answers[item].entry, milliseconds };
    const saved = await this.send('answer', body, `saved: slice ${item + 1}, ${named(label)}`);
    if (saved && this.state.item === item) this.goTo(this.firstOpen(item)); // unless the doctor has moved on meanwhile
  };

  undo = async () => {
    const entry = this.state.roundState.undo;
    if (!entry) return;
    const item = this.state.roundState.answers.findIndex((answer) => answer.entry === entry);
    if (await this.send('undo', { entry }, `taken back: slice ${item + 1}`)) this.goTo(item);
  };

  /** Returns the first item without an answer from `start` on, around the end; -1 if there is none. */
  firstOpen = (start) => {
    const { answers } = this.state.roundState;
    const order = answers.map((_, i) => (start + i) % answers.length);
    return order.find((i) => !answers[i].label) ?? -1;
  };

  /** Goes to an item, windowed like the last one, not zoomed; -1 goes to the end of the round. */
  goTo = (item) => this.setState(({ round, view, item: before, loadedSrc, ready }) => {
    const isLoaded = item >= 0 && loadedSrc === this.itemPicture(item);
    return {
      item,
      shown: item < 0 ? 0 : round.items[item].place,
      view: { ...view, zoom: 1, x: 0, y: 0 },
      ready: isLoaded || (item >= 0 && ready && item === before),
      loadedSrc: isLoaded ? loadedSrc : '',
    };
  });

  onLoaded = (src) => this.setState(({ item, ready }) => ({
    loadedSrc: src,
    ready: ready || (item >= 0 && src === this.itemPicture(item)),
  }));

  componentDidUpdate(_, before) {
    const { ready, item } = this.state;
    if (ready && !(before.ready && before.item === item)) this.shownAt = performance.now();
  }

  itemPicture = (item) => {
    const { round } = this.state;
    return this.picture(round.items[item].patient, round.sequence, round.items[item].place);
  };

  step = (by) => {
    const { item, round } = this.state;
    const last = round.items.length - 1;
    this.goTo(item < 0 ? last : Math.min(Math.max(item + by, 0), last));
  };

  scroll = (by) => this.setState(({ shown }) => ({ shown: Math.min(Math.max(shown + by, 0), this.stack().length - 1) }));

  /** Returns the positions (mm, or null) of the current patient's slices of the round's sequence. */
  stack = () => {
    const { round, item } = this.state;
    return round.stacks[round.items[item].patient][round.sequence];
  };

  setView = (view) => this.setState({ view });

  onKey = (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !this.state.round) return;
    const isReading = this.state.item >= 0;
    const actions = {
      ArrowLeft: () => this.step(-1),
      ArrowRight: () => this.step(1),
      u: this.undo,
      ...(isReading && {
        ...Object.fromEntries(this.labels().map((label, i) => [i + 1, () => this.answer(label)])),
        ArrowUp: () => this.scroll(-1),
        ArrowDown: () => this.scroll(1),
        '+': () => this.setView(zoomView(this.state.view, 1.25)),
        '-': () => this.setView(zoomView(this.state.view, 0.8)),
        0: () => this.setView(RESET_VIEW),
      }),
    };
    const typed = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    const key = typed in actions || LETTER.test(typed) ? typed : BY_PLACE[event.code];
    if (!actions[key]) return;
    event.preventDefault();
    if (!event.repeat || HELD.includes(key)) actions[key]();
  };

  /** Returns all answers that a slice may get. */
  labels = () => [...this.state.round.labels, ...Object.keys(NO_CLASS)];

  /** Returns `encephalitis 2, glioma 1`, what was said of a patient before and in this round, and how many classes. */
  said = (patient, leftOut = -1) => {
    const { round, roundState } = this.state;
    const counts = { ...round.said[patient] };
    round.items.forEach((item, i) => {
      const { label } = roundState.answers[i];
      if (item.patient === patient && label && i !== leftOut) counts[label] = (counts[label] ?? 0) + 1;
    });
    const classes = round.labels.filter((label) => counts[label]);
    return { text: classes.map((label) => `${label} ${counts[label]}`).join(', '), isContradiction: classes.length > 1 };
  };

  picture = (patient, sequence, place) => `picture/${this.state.roundState.round}/${patient}/${sequence}/${place}`;

  render(_, { round, item, message, isAlarm }) {
    if (!round) return html`<main class="finished"><p role="status">${message || 'loading …'}</p></main>`;
    return html`${this.header()}${item < 0 ? this.finished() : this.reading()}
      <p class=${`message ${isAlarm ? 'alarm' : ''}`} role=${isAlarm ? 'alert' : 'status'}>${message && live(message)}</p>`;
  }

  header() {
    const { round, roundState, item } = this.state;
    const total = roundState.answers.length;
    const left = roundState.answers.filter((answer) => !answer.label).length;
    const patient = item < 0 ? '' : ` · patient ${round.items[item].patient + 1} of ${round.stacks.length}`;
    return html`<header>
      <h1>${live(`Round ${round.fit + 1}${item < 0 ? '' : ` · slice ${item + 1} of ${total}`}${patient}`)}</h1>
      <b id="left">${live(`${left} left`)}</b>
      ${round.again && html`<strong class="again">${AGAIN[round.again]}</strong>`}
      ${round.phantom && html`<strong class="phantom">${PHANTOM[round.phantom]}</strong>`}
      <span class="research">Research use only</span>
    </header>`;
  }

  finished() {
    const { round, roundState } = this.state;
    const counts = Object.entries(NO_CLASS).map(([label, words]) => [words, roundState.answers.filter((a) => a.label === label).length]);
    const left = counts.filter(([, count]) => count).map(([words, count]) => `${count} ${words}`).join(', ');
    const next = roundState.over
      ? html`<p>The labelling is finished: no further round will come. You may close this page.</p>`
      : html`<p>Go on with this command; the next round then appears here by itself.</p><pre>${round.command}</pre>`;
    const changeable = 'Until they are trained on they can be changed: back (←) or undo (U).';
    const status = roundState.closed ? 'They are trained on now.' : changeable;
    return html`<main class="finished"><h2>All ${roundState.answers.length} slices of this round are answered</h2>
      ${this.contradictions()}
      <p>${left ? `Of them: ${left}. ` : ''}${`Every answer is on the disk. ${roundState.over ? '' : status}`}</p>${next}</main>`;
  }

  /** Shows the patients of whom both classes were said, and what becomes of it before the model is trained. */
  contradictions() {
    const { round, roundState } = this.state;
    const patients = round.stacks.map((_, patient) => patient).filter((patient) => this.said(patient).isContradiction);
    if (!patients.length || round.again === 'contradiction') return null;
    const last = (patient) => round.items.reduce((found, item, i) => (item.patient === patient ? i : found), -1);
    const rule = roundState.closed ? '' : ` Change an answer now, or ${SETTLED[round.contradictions]}.`;
    return html`<section class="contradictions"><p>A patient has one disease, and you said both of:</p>
      <ul>${patients.map((patient) => html`<li key=${patient}>patient ${patient + 1}: ${this.said(patient).text}
        ${' '}<button onClick=${() => this.goTo(last(patient))}>look again</button></li>`)}</ul><p>${rule}</p></section>`;
  }

  reading() {
    const { round, roundState, item, shown, view, busy, ready, epoch } = this.state;
    const { patient, place } = round.items[item];
    const current = roundState.answers[item].label;
    const names = new Map(round.sequences);
    const offset = shown - place;
    const note = offset ? `neighbour ${offset > 0 ? '+' : '−'}${Math.abs(offset)}: answers are for the outlined slice` : '';
    const said = this.said(patient, item);
    const contradicts = said.isContradiction ? ': these contradict each other' : '';
    return html`<main>
      <${WindowFilter} view=${view} />
      <section class="large">
        <h2>${names.get(round.sequence)}</h2>
        <${Viewer} onLoaded=${this.onLoaded} src=${this.picture(patient, round.sequence, shown)} view=${view} note=${note}
          alt="the slice shown" setView=${this.setView} scroll=${this.scroll} epoch=${epoch} />
      </section>
      <aside>${[...names].filter(([s]) => s !== round.sequence).map(([s, name]) => this.otherSequence(patient, s, name))}</aside>
      <nav aria-label="neighbouring slices">${this.stack().map((_, i) => html`<button key=${i}
        class=${`${i === place ? 'queried' : ''} ${i === shown ? 'shown' : ''}`} aria-label=${`slice ${i + 1}`}
        onClick=${() => this.setState({ shown: i })}><img src=${`${this.picture(patient, round.sequence, i)}?${epoch}`} alt="" /></button>`)}
      </nav>
      <footer>
        <div class="answers">${this.labels().map((label, i) => html`<button key=${label}
          class=${current === label ? 'chosen' : ''} aria-pressed=${current === label} disabled=${busy || !ready}
          onClick=${() => this.answer(label)}><kbd>${i + 1}</kbd> ${named(label)}</button>`)}
        </div>
        <div class="moves">
          <button onClick=${() => this.step(-1)} disabled=${item === 0}><kbd>←</kbd> back</button>
          <button onClick=${() => this.step(1)} disabled=${item === round.items.length - 1}><kbd>→</kbd> next</button>
          <button onClick=${this.undo} disabled=${busy || !roundState.undo}><kbd>U</kbd> undo</button>
        </div>
        <p class="hint">${said.text && html`<b>${live(`Said of this patient: ${said.text}${contradicts}.`)}</b> `}
          Drag: window · wheel or ↑ ↓: neighbours · + −: zoom, Shift-drag: move · 0: reset</p>
      </footer>
    </main>`;
  }

  /** Shows the slice of another sequence that lies nearest to the one on the screen. */
  otherSequence(patient, sequence, name) {
    const { round, shown, view, epoch } = this.state;
    const positions = round.stacks[patient][sequence] ?? [];
    if (!positions.length) return html`<figure key=${sequence}><figcaption>${name}: none</figcaption></figure>`;
    const place = nearest(positions, this.stack(), shown);
    const offset = positions[place] - this.stack()[shown];
    const distance = positions[place] == null || this.stack()[shown] == null || Math.abs(offset) < 0.5
      ? '' : ` · ${offset > 0 ? '+' : '−'}${Math.abs(offset).toFixed(0)} mm`;
    return html`<figure key=${sequence}><figcaption>${live(`${name}${distance}`)}</figcaption>
      <${Viewer} src=${this.picture(patient, sequence, place)} alt=${`${name} of the same patient`} view=${view}
        onLoaded=${() => {}} setView=${this.setView} scroll=${this.scroll} epoch=${epoch} /></figure>`;
  }
}

render(h(Page), document.body);
