// Shows one slice: dragging changes the window, the wheel goes to its neighbours.
import { Component, h } from './preact.mjs';
import htm from './htm.mjs';

const html = htm.bind(h);
export const RETRY_MS = 1500; // before a message that failed is sent again
const RETRIES_MS = [RETRY_MS, 3000, 6000, 12000]; // before each further try of a picture: then it is taken for missing
export const RESET_VIEW = { center: 0.5, width: 1, zoom: 1, x: 0, y: 0 };

const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

/** Returns the view with its window dragged by (dx, dy), in shares of the picture: right is wider, up is brighter. */
const dragWindow = (view, dx, dy) => ({
  ...view,
  width: clamp(view.width + dx, 0.02, 1), // not wider than all greys there are
  center: clamp(view.center + dy, 0, 1),
});

/** Returns the view with its picture moved by (dx, dy), in shares of the picture, but not over its edges. */
const movePicture = (view, dx, dy) => {
  const limit = (view.zoom - 1) / 2;
  return { ...view, x: clamp(view.x + dx, -limit, limit), y: clamp(view.y + dy, -limit, limit) };
};

export const zoomView = (view, factor) => movePicture({ ...view, zoom: clamp(view.zoom * factor, 1, 8) }, 0, 0);

/** Renders the linear window as an SVG filter: exact, and the same in every browser. */
export const WindowFilter = ({ view }) => {
  const slope = 1 / view.width;
  const intercept = 0.5 - view.center * slope;
  const channels = ['R', 'G', 'B'].map((c) => h(`feFunc${c}`, { type: 'linear', slope, intercept }));
  return html`<svg class="filters" aria-hidden="true"><filter id="window" color-interpolation-filters="sRGB">
    <feComponentTransfer>${channels}</feComponentTransfer></filter></svg>`;
};

export class Viewer extends Component {
  state = { src: '', tries: 0, start: 0 }; // tries of this picture, and how many there were when it was tried anew

  /** Another picture, or a server that has come back (`epoch`), is tried anew. */
  static getDerivedStateFromProps = ({ src, epoch }, state) => (
    state.src === `${src} ${epoch}` ? null : { src: `${src} ${epoch}`, tries: 0, start: 0 });

  onError = () => {
    const { src, tries, start } = this.state;
    const next = () => this.setState((now) => (now.src === src ? { tries: tries + 1 } : null));
    if (tries - start < RETRIES_MS.length) setTimeout(next, RETRIES_MS[tries - start]);
    else next();
  };

  onDrag = (event) => {
    if (!(event.buttons & 1)) return;
    const { width, height } = event.currentTarget.getBoundingClientRect();
    const [dx, dy] = [event.movementX / width, event.movementY / height];
    const { view, setView } = this.props;
    setView(event.shiftKey ? movePicture(view, dx, dy) : dragWindow(view, dx, dy));
  };

  onWheel = (event) => {
    event.preventDefault();
    if (event.ctrlKey) this.props.setView(zoomView(this.props.view, event.deltaY < 0 ? 1.1 : 1 / 1.1));
    else this.props.scroll(Math.sign(event.deltaY));
  };

  render({ src, alt, view, setView, note, onLoaded, epoch }, { tries, start }) {
    const transform = `translate(${view.x * 100}%, ${view.y * 100}%) scale(${view.zoom})`;
    return html`<div class="viewer" onPointerMove=${this.onDrag} onWheel=${this.onWheel} onDblClick=${() => setView(RESET_VIEW)}
        onPointerDown=${(e) => e.target.closest('button') || e.currentTarget.setPointerCapture(e.pointerId)}>
      ${tries - start > RETRIES_MS.length
        ? html`<p class="missing" role="alert">This picture cannot be loaded.${' '}
            <button onClick=${() => this.setState({ start: tries })}>try again</button></p>`
        : html`<img key=${`${src}?${epoch}.${tries}`} src=${`${src}?${epoch}.${tries}`} alt=${alt} draggable=${false}
            style=${{ transform }} onLoad=${() => onLoaded(src)} onError=${this.onError} />`}
      ${note && html`<p class="note" key=${note}>${note}</p>`}
    </div>`;
  }
}
