// The reading page: what is asked, the answers, and nothing that is not on the server's disk before it is shown as said.
import { Component, h, render } from './preact.mjs';
import htm from './htm.mjs';
import { PLAIN, Viewer, Windowing, zoomed } from './viewer.js';

const html = htm.bind(h);
const SKIP = 'skip';
const PHANTOM = { true: 'Phantom: simulated images, no patients', mixed: 'Phantom and patients mixed' };
const POLL_MS = 3000;
const AGAIN_MS = 1500;
const ABSENT = 'the server does not answer';

const pause = () => new Promise((resolve) => setTimeout(resolve, AGAIN_MS));

const get = async (path) => {
  const response = await fetch(path);
  if (!response.ok) throw new Error((await response.json()).error);
  return response.json();
};

/** Which of `positions` (mm, or null) is nearest to the slice at `place` of `others`; by rank where they are unknown. */
export const nearest = (positions, others, place) => {
  const here = others[place];
  if (here == null || positions.includes(null)) {
    return Math.round((place / Math.max(others.length - 1, 1)) * (positions.length - 1));
  }
  return positions.reduce((best, x, i) => (Math.abs(x - here) < Math.abs(positions[best] - here) ? i : best), 0);
};

class Page extends Component {
  // loaded: the picture that is on the screen; ready: the asked slice has been there.
  state = { round: null, at: 0, shown: 0, view: PLAIN, loaded: '', ready: false, busy: false, told: '' };

  sending = false;

  turn = 0; // counts what was sent, so that older news is not taken for newer

  componentDidMount() {
    this.load();
    document.addEventListener('keydown', this.key);
    window.addEventListener('beforeunload', (event) => this.state.busy && event.preventDefault());
    setInterval(this.poll, POLL_MS);
  }

  /** Takes over the newest round, all of it at once; tries until it is there. */
  load = async (told = '') => {
    this.setState({ busy: true });
    for (;;) {
      try {
        const { state: answers, ...round } = await get('round');
        const at = answers.answers.findIndex((a) => !a.label);
        const shown = at < 0 ? 0 : round.items[at].place;
        this.setState({ round, answers, at, shown, view: PLAIN, loaded: '', ready: false, busy: false, told });
        return;
      } catch (error) {
        this.setState({ told: `cannot be read (${error.message}), trying again` });
        await pause();
      }
    }
  };

  poll = async () => {
    const { turn } = this;
    if (this.state.busy || !this.state.round) return;
    try {
      const answers = await get('state');
      if (this.state.busy || turn !== this.turn) return;
      if (answers.round !== this.state.answers.round) await this.load();
      else this.setState(({ told }) => ({ answers, told: told.startsWith(ABSENT) ? '' : told }));
    } catch (error) {
      if (!this.state.busy) this.setState({ told: `${ABSENT} (${error.message}): is launch.annotate running? This page goes on by itself` });
    }
  };

  /** Sends until the server says that it is on the disk, or refuses; the same id, so that it counts once. */
  send = async (path, body) => {
    if (this.sending || this.state.busy) return null;
    this.sending = true;
    try {
      return await this.sendNow(path, body);
    } finally {
      this.sending = false;
    }
  };

  sendNow = async (path, body) => {
    this.turn += 1;
    this.setState({ busy: true, told: 'saving …' });
    const message = { id: crypto.randomUUID(), round: this.state.answers.round, ...body };
    const request = { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(message) };
    for (;;) {
      try {
        const response = await fetch(path, request);
        const found = await response.json();
        this.turn += 1;
        if (response.ok) {
          this.setState({ busy: false, told: '', answers: found });
          return found;
        }
        if (found.state && found.state.round !== message.round) await this.load(found.error);
        else this.setState({ busy: false, told: found.error, ...(found.state && { answers: found.state }) });
        return null;
      } catch {
        this.setState({ told: 'NOT SAVED: the server does not answer. Start launch.annotate again; this page keeps trying' });
        await pause();
      }
    }
  };

  answer = async (label) => {
    const { at, answers, ready } = this.state;
    if (!ready) {
      this.setState({ told: 'not answered: the slice is not on the screen yet' });
      return;
    }
    const done = await this.send('answer', { item: at, label, seen: answers.answers[at].entry });
    if (done && this.state.at === at) this.go(this.firstOpen(at)); // unless the doctor has gone elsewhere meanwhile
  };

  undo = async () => {
    const entry = this.state.answers.undo;
    if (!entry) return;
    const place = this.state.answers.answers.findIndex((a) => a.entry === entry);
    if (await this.send('undo', { entry })) this.go(place);
  };

  firstOpen = (from) => {
    const { answers } = this.state.answers;
    const order = answers.map((_, i) => (from + i) % answers.length);
    return order.find((i) => !answers[i].label) ?? -1;
  };

  /** To a slice, windowed as the last, not zoomed; -1: all are answered. */
  go = (at) => this.setState(({ round, view, at: before, loaded, ready }) => ({
    at,
    shown: at < 0 ? 0 : round.items[at].place,
    view: { ...view, zoom: 1, x: 0, y: 0 },
    ready: at >= 0 && ((ready && at === before) || loaded === this.asked(at)),
    loaded: at >= 0 && loaded === this.asked(at) ? loaded : '',
  }));

  loaded = (src) => this.setState(({ at, ready }) => ({ loaded: src, ready: ready || (at >= 0 && src === this.asked(at)) }));

  asked = (at) => {
    const { round } = this.state;
    return this.picture(round.items[at].patient, round.sequence, round.items[at].place);
  };

  step = (by) => {
    const { at, round } = this.state;
    const last = round.items.length - 1;
    this.go(at < 0 ? last : Math.min(Math.max(at + by, 0), last));
  };

  scroll = (by) => this.setState(({ shown }) => ({ shown: Math.min(Math.max(shown + by, 0), this.stack().length - 1) }));

  stack = () => {
    const { round, at } = this.state;
    return round.stacks[round.items[at].patient][round.sequence];
  };

  change = (view) => this.setState({ view });

  key = (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !this.state.round || event.repeat) return;
    const { labels } = this.state.round;
    const open = this.state.at >= 0;
    const keys = {
      ArrowLeft: () => this.step(-1),
      ArrowRight: () => this.step(1),
      u: this.undo,
      ...(open && {
        1: () => this.answer(labels[0]),
        2: () => this.answer(labels[1]),
        3: () => this.answer(SKIP),
        s: () => this.answer(SKIP),
        ArrowUp: () => this.scroll(-1),
        ArrowDown: () => this.scroll(1),
        '+': () => this.change(zoomed(this.state.view, 1.25)),
        '-': () => this.change(zoomed(this.state.view, 0.8)),
        0: () => this.change(PLAIN),
      }),
    };
    const act = keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!act) return;
    event.preventDefault();
    act();
  };

  picture = (patient, sequence, place) => `picture/${this.state.answers.round}/${patient}/${sequence}/${place}`;

  render(_, { round, at, told }) {
    if (!round) return html`<main class="over"><p role="status">${told || 'loading …'}</p></main>`;
    return html`${this.header()}${at < 0 ? this.over() : this.reading()}
      <p class="told" role="status" aria-live="assertive">${told}</p>`;
  }

  header() {
    const { round, answers, at } = this.state;
    const total = answers.answers.length;
    const left = answers.answers.filter((a) => !a.label).length;
    const patient = at < 0 ? '' : ` · patient ${round.items[at].patient + 1} of ${round.stacks.length}`;
    return html`<header>
      <h1>Round ${answers.round + 1}${at < 0 ? '' : ` · slice ${at + 1} of ${total}`}${patient}</h1>
      <progress max=${total} value=${total - left} aria-label="answered"></progress>
      <b id="left">${left} left</b>
      ${round.phantom && html`<strong class="phantom">${PHANTOM[round.phantom]}</strong>`}
      <span class="use">Research use only</span>
    </header>`;
  }

  over() {
    const { round, answers } = this.state;
    const skipped = answers.answers.filter((a) => a.label === SKIP).length;
    const next = answers.over
      ? html`<p>The labelling is finished: no further round will come. You may close this page.</p>`
      : html`<p>Go on with this command; the next round then appears here by itself.</p><pre>${round.command}</pre>`;
    const open = 'Until they are trained on they can be changed: back (←) or undo (U).';
    const how = answers.closed ? 'They are trained on now.' : open;
    return html`<main class="over"><h2>All ${answers.answers.length} slices of this round are answered</h2>
      <p>${skipped ? `${skipped} of them skipped. ` : ''}${`Every answer is on the disk. ${answers.over ? '' : how}`}</p>${next}</main>`;
  }

  reading() {
    const { round, answers, at, shown, view, busy, ready } = this.state;
    const { patient, place } = round.items[at];
    const now = answers.answers[at].label;
    const names = new Map(round.sequences);
    const away = shown - place;
    const note = away ? `neighbour ${away > 0 ? '+' : '−'}${Math.abs(away)}: answers are for the outlined slice` : '';
    const said = round.items.flatMap((item, i) => {
      const { label } = answers.answers[i];
      return i !== at && item.patient === patient && label && label !== SKIP ? [label] : [];
    });
    const counts = round.labels.filter((l) => said.includes(l)).map((l) => `${l} ${said.filter((x) => x === l).length}`);
    return html`<main>
      <${Windowing} view=${view} />
      <section class="large">
        <h2>${names.get(round.sequence)}</h2>
        <${Viewer} loaded=${this.loaded} src=${this.picture(patient, round.sequence, shown)} view=${view} note=${note}
          change=${this.change} scroll=${this.scroll} />
      </section>
      <aside>${[...names].filter(([s]) => s !== round.sequence).map(([s, name]) => this.beside(patient, s, name))}</aside>
      <nav aria-label="neighbouring slices">${this.stack().map((_, i) => html`<button key=${i}
        class=${`${i === place ? 'asked' : ''} ${i === shown ? 'shown' : ''}`} aria-label=${`slice ${i + 1}`}
        onClick=${() => this.setState({ shown: i })}><img src=${this.picture(patient, round.sequence, i)} alt="" /></button>`)}
      </nav>
      <footer>
        <div class="answers">${[...round.labels, SKIP].map((label, i) => html`<button key=${label}
          class=${`${label} ${now === label ? 'chosen' : ''}`} aria-pressed=${now === label} disabled=${busy || !ready}
          onClick=${() => this.answer(label)}><kbd>${i + 1}</kbd> ${label === SKIP ? 'skip: cannot tell' : label}</button>`)}
        </div>
        <div class="moves">
          <button onClick=${() => this.step(-1)} disabled=${at === 0}><kbd>←</kbd> back</button>
          <button onClick=${() => this.step(1)} disabled=${at === round.items.length - 1}><kbd>→</kbd> next</button>
          <button onClick=${this.undo} disabled=${busy || !answers.undo}><kbd>U</kbd> undo</button>
        </div>
        <p class="hint">${counts.length ? html`<b>Said of this patient: ${counts.join(', ')}.</b> ` : ''}
          Drag: window · wheel or ↑ ↓: neighbours · + −: zoom, Shift-drag: move · 0: reset</p>
      </footer>
    </main>`;
  }

  beside(patient, sequence, name) {
    const { round, shown } = this.state;
    const positions = round.stacks[patient][sequence] ?? [];
    if (!positions.length) return html`<figure key=${sequence}><figcaption>${name}: none</figcaption></figure>`;
    const place = nearest(positions, this.stack(), shown);
    const off = positions[place] - this.stack()[shown];
    const distance = positions[place] == null || this.stack()[shown] == null || Math.abs(off) < 0.5
      ? '' : ` · ${off > 0 ? '+' : '−'}${Math.abs(off).toFixed(0)} mm`;
    return html`<figure key=${sequence}><figcaption>${name}${distance}</figcaption>
      <img src=${this.picture(patient, sequence, place)} alt=${`${name} of the same patient`} /></figure>`;
  }
}

render(h(Page), document.body);
