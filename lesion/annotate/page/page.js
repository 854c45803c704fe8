// The reading page: shows the queried slices and sends the answers. An answer is shown as given only once the server has
// it on its disk.
import { Component, h, render } from './preact.mjs';
import htm from './htm.mjs';
import { RESET_VIEW, RETRY_MS, Viewer, WindowFilter, zoomView } from './viewer.js';

const html = htm.bind(h);
const SKIP = 'skip';
const PHANTOM = { true: 'Phantom: simulated images, no patients', mixed: 'Phantom and patients mixed' };
const POLL_MS = 3000;
const NO_SERVER = 'the server does not answer';

const pause = () => new Promise((resolve) => setTimeout(resolve, RETRY_MS));

const get = async (path) => {
  const response = await fetch(path);
  if (!response.ok) throw new Error((await response.json()).error);
  return response.json();
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
  };

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
        this.setState({ round, roundState, item, shown, view: RESET_VIEW, loadedSrc: '', ready: false, busy: false, message });
        return;
      } catch (error) {
        this.setState({ message: `cannot be read (${error.message}), trying again` });
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
      if (roundState.round !== this.state.roundState.round) await this.load();
      else this.setState(({ message }) => ({ roundState, message: message.startsWith(NO_SERVER) ? '' : message }));
    } catch (error) {
      if (!this.state.busy) this.setState({ message: `${NO_SERVER} (${error.message}): is launch.annotate running? This page goes on by itself` });
    }
  };

  /** Sends one message at a time; returns the server's state, or null if it was refused. */
  send = async (path, body) => {
    if (this.sending || this.state.busy) return null;
    this.sending = true;
    try {
      return await this.sendUntilAnswered(path, body);
    } finally {
      this.sending = false;
    }
  };

  /** Sends until the server has the message on its disk or refuses it; always with one id, so that it counts once. */
  sendUntilAnswered = async (path, body) => {
    this.numExchanged += 1;
    this.setState({ busy: true, message: 'saving …' });
    const content = { id: crypto.randomUUID(), round: this.state.roundState.round, ...body };
    const request = { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(content) };
    for (;;) {
      try {
        const response = await fetch(path, request);
        const reply = await response.json();
        this.numExchanged += 1;
        if (response.ok) {
          this.setState({ busy: false, message: '', roundState: reply });
          return reply;
        }
        if (reply.state && reply.state.round !== content.round) await this.load(reply.error);
        else this.setState({ busy: false, message: reply.error, ...(reply.state && { roundState: reply.state }) });
        return null;
      } catch {
        this.setState({ message: 'NOT SAVED: the server does not answer. Start launch.annotate again; this page keeps trying' });
        await pause();
      }
    }
  };

  answer = async (label) => {
    const { item, roundState, ready } = this.state;
    if (!ready) {
      this.setState({ message: 'not answered: the slice is not on the screen yet' });
      return;
    }
    const saved = await this.send('answer', { item, label, seen: roundState.answers[item].entry });
    if (saved && this.state.item === item) this.goTo(this.firstOpen(item)); // unless the doctor has moved on meanwhile
  };

  undo = async () => {
    const entry = this.state.roundState.undo;
    if (!entry) return;
    const item = this.state.roundState.answers.findIndex((answer) => answer.entry === entry);
    if (await this.send('undo', { entry })) this.goTo(item);
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
    if (event.ctrlKey || event.metaKey || event.altKey || !this.state.round || event.repeat) return;
    const { labels } = this.state.round;
    const isReading = this.state.item >= 0;
    const actions = {
      ArrowLeft: () => this.step(-1),
      ArrowRight: () => this.step(1),
      u: this.undo,
      ...(isReading && {
        1: () => this.answer(labels[0]),
        2: () => this.answer(labels[1]),
        3: () => this.answer(SKIP),
        s: () => this.answer(SKIP),
        ArrowUp: () => this.scroll(-1),
        ArrowDown: () => this.scroll(1),
        '+': () => this.setView(zoomView(this.state.view, 1.25)),
        '-': () => this.setView(zoomView(this.state.view, 0.8)),
        0: () => this.setView(RESET_VIEW),
      }),
    };
    const action = actions[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!action) return;
    event.preventDefault();
    action();
  };

  picture = (patient, sequence, place) => `picture/${this.state.roundState.round}/${patient}/${sequence}/${place}`;

  render(_, { round, item, message }) {
    if (!round) return html`<main class="finished"><p role="status">${message || 'loading …'}</p></main>`;
    return html`${this.header()}${item < 0 ? this.finished() : this.reading()}
      <p class="message" role="status" aria-live="assertive">${message}</p>`;
  }

  header() {
    const { round, roundState, item } = this.state;
    const total = roundState.answers.length;
    const left = roundState.answers.filter((answer) => !answer.label).length;
    const patient = item < 0 ? '' : ` · patient ${round.items[item].patient + 1} of ${round.stacks.length}`;
    return html`<header>
      <h1>Round ${roundState.round + 1}${item < 0 ? '' : ` · slice ${item + 1} of ${total}`}${patient}</h1>
      <progress max=${total} value=${total - left} aria-label="answered"></progress>
      <b id="left">${left} left</b>
      ${round.phantom && html`<strong class="phantom">${PHANTOM[round.phantom]}</strong>`}
      <span class="research">Research use only</span>
    </header>`;
  }

  finished() {
    const { round, roundState } = this.state;
    const skipped = roundState.answers.filter((answer) => answer.label === SKIP).length;
    const next = roundState.over
      ? html`<p>The labelling is finished: no further round will come. You may close this page.</p>`
      : html`<p>Go on with this command; the next round then appears here by itself.</p><pre>${round.command}</pre>`;
    const changeable = 'Until they are trained on they can be changed: back (←) or undo (U).';
    const status = roundState.closed ? 'They are trained on now.' : changeable;
    return html`<main class="finished"><h2>All ${roundState.answers.length} slices of this round are answered</h2>
      <p>${skipped ? `${skipped} of them skipped. ` : ''}${`Every answer is on the disk. ${roundState.over ? '' : status}`}</p>${next}</main>`;
  }

  reading() {
    const { round, roundState, item, shown, view, busy, ready } = this.state;
    const { patient, place } = round.items[item];
    const current = roundState.answers[item].label;
    const names = new Map(round.sequences);
    const offset = shown - place;
    const note = offset ? `neighbour ${offset > 0 ? '+' : '−'}${Math.abs(offset)}: answers are for the outlined slice` : '';
    const labelsOfPatient = round.items.flatMap((other, i) => {
      const { label } = roundState.answers[i];
      return i !== item && other.patient === patient && label && label !== SKIP ? [label] : [];
    });
    const counts = round.labels.flatMap((label) => {
      const count = labelsOfPatient.filter((other) => other === label).length;
      return count ? [`${label} ${count}`] : [];
    });
    return html`<main>
      <${WindowFilter} view=${view} />
      <section class="large">
        <h2>${names.get(round.sequence)}</h2>
        <${Viewer} onLoaded=${this.onLoaded} src=${this.picture(patient, round.sequence, shown)} view=${view} note=${note}
          setView=${this.setView} scroll=${this.scroll} />
      </section>
      <aside>${[...names].filter(([s]) => s !== round.sequence).map(([s, name]) => this.otherSequence(patient, s, name))}</aside>
      <nav aria-label="neighbouring slices">${this.stack().map((_, i) => html`<button key=${i}
        class=${`${i === place ? 'queried' : ''} ${i === shown ? 'shown' : ''}`} aria-label=${`slice ${i + 1}`}
        onClick=${() => this.setState({ shown: i })}><img src=${this.picture(patient, round.sequence, i)} alt="" /></button>`)}
      </nav>
      <footer>
        <div class="answers">${[...round.labels, SKIP].map((label, i) => html`<button key=${label}
          class=${current === label ? 'chosen' : ''} aria-pressed=${current === label} disabled=${busy || !ready}
          onClick=${() => this.answer(label)}><kbd>${i + 1}</kbd> ${label === SKIP ? 'skip: cannot tell' : label}</button>`)}
        </div>
        <div class="moves">
          <button onClick=${() => this.step(-1)} disabled=${item === 0}><kbd>←</kbd> back</button>
          <button onClick=${() => this.step(1)} disabled=${item === round.items.length - 1}><kbd>→</kbd> next</button>
          <button onClick=${this.undo} disabled=${busy || !roundState.undo}><kbd>U</kbd> undo</button>
        </div>
        <p class="hint">${counts.length ? html`<b>Said of this patient: ${counts.join(', ')}.</b> ` : ''}
          Drag: window · wheel or ↑ ↓: neighbours · + −: zoom, Shift-drag: move · 0: reset</p>
      </footer>
    </main>`;
  }

  /** Shows the slice of another sequence that lies nearest to the one on the screen. */
  otherSequence(patient, sequence, name) {
    const { round, shown } = this.state;
    const positions = round.stacks[patient][sequence] ?? [];
    if (!positions.length) return html`<figure key=${sequence}><figcaption>${name}: none</figcaption></figure>`;
    const place = nearest(positions, this.stack(), shown);
    const offset = positions[place] - this.stack()[shown];
    const distance = positions[place] == null || this.stack()[shown] == null || Math.abs(offset) < 0.5
      ? '' : ` · ${offset > 0 ? '+' : '−'}${Math.abs(offset).toFixed(0)} mm`;
    return html`<figure key=${sequence}><figcaption>${name}${distance}</figcaption>
      <img src=${this.picture(patient, sequence, place)} alt=${`${name} of the same patient`} /></figure>`;
  }
}

render(h(Page), document.body);
